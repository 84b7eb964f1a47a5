"""Several servers, or one address: each request goes to one that has room, and again where it was lost.

A server that fails is left alone for a while and then asked for a canary, which costs no case. A case that was under
way when a server failed is asked again, from the second time on alone at a server: if that fails MAX_BREAKS times, the
case is what fails.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Literal, TypeVar

from medimageparse_client.cohort.window import Window
from medimageparse_client.errors import (
    AccessDenied,
    MedImageParseError,
    OddAnswer,
    ServerBusy,
    ServerError,
    ServerUnavailable,
    WaitedTooLong,
)
from medimageparse_client.retry import MAX_BREAKS, pauses

LOST_IN_COMPANY = 2  # times that a case may be lost among others before it is suspected

Answer = TypeVar("Answer")
Outcome = Literal["answered", "failed", "full", "lost"]


class Server:
    """
    claim: the request that is to be alone here; until it is done no other begins
    is_away: whether a canary is to be answered before the next request; rests_until_s: when it may be asked
    troubled_s: since when nothing was answered, or None
    """

    def __init__(self, url: str, most: int) -> None:
        self.url, self.window = url, Window(most)
        self.under_way = self.n_begun = 0
        self.claim: object | None = None
        self.is_away = self.is_probed = False
        self.rests_until_s = self.back_s = 0.0
        self.troubled_s: float | None = None
        self.pauses: Iterator[float] = pauses()

    def is_free_for(self, request: object) -> bool:
        if self.is_away or self.rests_until_s > time.monotonic():
            return False
        if self.claim is not None:
            return self.claim is request and self.under_way == 0
        return self.under_way < self.window.size

    def rest(self) -> None:
        now = time.monotonic()
        self.rests_until_s = now + next(self.pauses)
        self.troubled_s = now if self.troubled_s is None else self.troubled_s

    def is_well(self) -> None:
        self.troubled_s, self.pauses, self.rests_until_s = None, pauses(), 0.0


class Servers:
    """
    most: requests at a time for each address
    limit_s: how long all of them may be away at a stretch, in seconds
    segments: whether the server at a url answers a canary right
    tell: gets a sentence when a server goes or comes back
    """

    def __init__(
        self,
        urls: Sequence[str],
        most: int,
        limit_s: float,
        segments: Callable[[str], bool],
        tell: Callable[[str], None],
    ) -> None:
        self.servers = [Server(url, most) for url in urls]
        self.limit_s, self.segments, self.tell = limit_s, segments, tell
        self.final: MedImageParseError | None = None  # what ended the run: nobody asks again
        self._changed = threading.Condition()

    def ask(self, request: Callable[[str], Answer]) -> Answer:
        """What `request` gives for the url of a server; raises its error where asking again is no use, or `final`."""
        n_lost, token = 0, object()
        while True:
            server = self._take(token, n_lost >= LOST_IN_COMPANY)
            begun_s = time.monotonic()
            outcome: Outcome = "failed"
            failure: MedImageParseError | None = None
            try:
                answer = request(server.url)
                outcome = "answered"
                return answer
            except MedImageParseError as error:
                failure, outcome = error, self._outcome_of(error, server)
                if outcome == "failed":
                    raise
            finally:
                self._give_back(server, token, outcome, begun_s, failure)
            if outcome == "lost":
                n_lost += 1
                if n_lost == LOST_IN_COMPANY + MAX_BREAKS:
                    raise ServerError(f"a server failed {MAX_BREAKS} times while it had nothing else") from failure

    def stop(self) -> None:
        """Nobody is asked from now on."""
        with self._changed:
            self.final = self.final or ServerUnavailable("the run was stopped")
            self._changed.notify_all()

    def _outcome_of(self, error: MedImageParseError, server: Server) -> Outcome:
        if isinstance(error, AccessDenied):
            with self._changed:
                self.final = self.final or error
            return "failed"
        if isinstance(error, ServerBusy | WaitedTooLong):
            return "full"
        if isinstance(error, ServerUnavailable):
            return "lost"
        if isinstance(error, ServerError) and not isinstance(error, OddAnswer) and not self.segments(server.url):
            return "lost"
        return "failed"

    def _take(self, token: object, is_alone: bool) -> Server:
        """A server with room; waits for one, and asks those that are away for a canary meanwhile."""
        while True:
            with self._changed:
                if self.final:
                    raise self.final
                if is_alone:
                    self._claim_for(token)
                free = [server for server in self.servers if server.is_free_for(token)]
                if is_alone:
                    free = [server for server in free if server.claim is token]
                if free:
                    server = min(free, key=lambda server: (server.under_way / server.window.size, server.n_begun))
                    server.under_way += 1
                    server.n_begun += 1
                    return server
                away = self._due()
                if away is None:
                    self._changed.wait(self._next_s())
                    continue
                away.is_probed = True
            self._probe(away)

    def _claim_for(self, token: object) -> None:
        here = [server for server in self.servers if not server.is_away]
        if any(server.claim is token for server in here):
            return
        if open_ones := [server for server in here if server.claim is None]:
            min(open_ones, key=lambda server: server.under_way).claim = token

    def _due(self) -> Server | None:
        now = time.monotonic()
        return next((s for s in self.servers if s.is_away and not s.is_probed and s.rests_until_s <= now), None)

    def _next_s(self) -> float:
        """Seconds until a rest is over."""
        now = time.monotonic()
        rests = [server.rests_until_s - now for server in self.servers if server.rests_until_s > now]
        return min(rests, default=1.0) + 1e-3

    def _probe(self, server: Server) -> None:
        is_back = False
        try:
            with suppress(MedImageParseError):
                is_back = self.segments(server.url)
        finally:
            server.is_probed = False
        with self._changed:
            if is_back:
                server.is_well()
                server.is_away, server.back_s = False, time.monotonic()
                server.window.restart()
                self.tell(f"the server at {server.url} answers again")
            else:
                server.rest()
                self._end_where_all_are_away(ServerUnavailable(f"the server at {server.url} is not available"))
            self._changed.notify_all()

    def _give_back(
        self, server: Server, token: object, outcome: Outcome, begun_s: float, failure: MedImageParseError | None
    ) -> None:
        with self._changed:
            was_full = server.under_way >= server.window.size
            server.under_way -= 1
            if server.claim is token:
                server.claim = None
            if outcome == "answered":
                server.is_well()
                server.window.answered(was_full=was_full)
            elif outcome == "full":
                server.window.refused(begun_s)
                if not server.under_way:  # others fill it
                    server.rest()
            elif outcome == "lost" and begun_s >= server.back_s and not server.is_away:
                server.is_away, server.claim = True, None
                server.rest()
                self.tell(f"{failure}; trying again for up to {self.limit_s:g} s")
            if failure and outcome in ("full", "lost"):
                self._end_where_all_are_away(failure)
            self._changed.notify_all()

    def _end_where_all_are_away(self, failure: MedImageParseError) -> None:
        now = time.monotonic()
        waited_s = [math.inf if s.troubled_s is None else s.troubled_s for s in self.servers]
        is_over = all(now - since_s >= self.limit_s for since_s in waited_s)
        if is_over and not any(server.under_way for server in self.servers) and not self.final:
            self.final = ServerUnavailable(f"{failure}; that has lasted {self.limit_s:g} s")
