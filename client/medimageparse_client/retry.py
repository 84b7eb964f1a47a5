"""Waits while a server is away and asks it again, for all threads that ask it."""

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from medimageparse_client.errors import (
    AccessDenied,
    MedImageParseError,
    OddAnswer,
    ServerBusy,
    ServerError,
    ServerUnavailable,
    WaitedTooLong,
)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
MAX_BREAKS = 3  # times that a request may be broken off by a server that was well just before

Answer = TypeVar("Answer")


class Room:
    """How many requests of a run may be under way: fewer after each that the server had no room for."""

    def __init__(self) -> None:
        self._limit: float = math.inf  # that of the run's threads, until the server says otherwise
        self._under_way = 0
        self._changed = threading.Condition()

    @contextmanager
    def place(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < self._limit)
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def shrink(self) -> bool:
        """After a refusal: no more at a time than are under way. False where none is: others fill the server."""
        with self._changed:
            if self._under_way:
                self._limit = min(self._limit, self._under_way)
            return bool(self._under_way)


class Retry:
    """Asks again when the server restarts, is overloaded or loses a step; one for all threads of a run.

    A caller's mistake and a request that takes too long are not tried again.

    limit_s: how long the server may be away at a stretch, in seconds; 0 never waits
    is_back: whether the server segments
    tell: gets a sentence when a wait is not over at once
    """

    def __init__(self, limit_s: float, is_back: Callable[[], bool], tell: Callable[[str], None]) -> None:
        self.limit_s = limit_s
        self.is_back, self.tell = is_back, tell
        self.final: ServerUnavailable | None = None  # what ended the run: nobody asks again
        self._room = Room()
        self._trouble = threading.Lock()  # held by the one thread that waits for the server, or asks again
        self._stopped = threading.Event()

    def ask(self, request: Callable[[], Answer]) -> Answer:
        """The answer to `request`; raises its error when asking again is no use or takes longer than `limit_s`."""
        while True:
            with self._trouble:  # another's wait is everybody's
                pass
            try:
                with self._room.place():
                    if self.final:
                        raise self.final
                    return request()
            except MedImageParseError as error:
                if self._was_too_many(error):
                    continue
                failure, failed_s = self._check(error), time.monotonic()
                break
        # one at a time, so that no other request is there when one brings the server down
        with self._trouble:
            return self._ask_again(request, failure, failed_s)

    def _was_too_many(self, error: MedImageParseError) -> bool:
        """Whether this run's own requests fill the server; then this one waits until another is done."""
        is_full = isinstance(error, ServerBusy | WaitedTooLong) and bool(self.limit_s)
        return is_full and not self.final and not self._stopped.is_set() and self._room.shrink()

    def stop(self) -> None:
        """Ends every wait at once; what is asked from now on raises."""
        self.final = self.final or ServerUnavailable("the run was stopped")
        self._stopped.set()

    def _ask_again(self, request: Callable[[], Answer], failure: MedImageParseError, failed_s: float) -> Answer:
        n_breaks, pauses_s = 0, pauses()
        while n_breaks < MAX_BREAKS:
            self._wait(failure, failed_s, pauses_s)
            try:
                return request()
            except MedImageParseError as error:
                failure = self._check(error)
                if not isinstance(error, ServerBusy):
                    n_breaks, failed_s = n_breaks + 1, time.monotonic()
        raise type(failure)(f"{failure}; that happened {MAX_BREAKS} times while nothing else was sent") from failure

    def _check(self, error: MedImageParseError) -> MedImageParseError:
        """The error, if asking again may help; raises it if not."""
        if self._stopped.is_set():
            raise error
        if isinstance(error, AccessDenied) or isinstance(error, ServerUnavailable) and not self.limit_s:
            self.final = self.final or error
            raise self.final
        is_worth_it = isinstance(error, ServerUnavailable)
        if isinstance(error, ServerError) and not isinstance(error, OddAnswer) and self.limit_s:
            is_worth_it = not self.is_back()  # or this request is all that the server cannot do
        if not is_worth_it:
            raise error
        return error

    def _wait(self, failure: MedImageParseError, failed_s: float, pauses_s: Iterator[float]) -> None:
        """Returns when the server segments; raises after the limit, or when another's wait has reached it."""
        is_told = False
        for pause_s in pauses_s:
            left_s = max(failed_s + self.limit_s - time.monotonic(), 0)
            if self.final:
                raise self.final
            if self._stopped.wait(min(pause_s, left_s)):
                raise failure
            if self.is_back():
                return
            if not left_s:
                self.final = ServerUnavailable(f"{failure}; that has lasted {self.limit_s:g} s")
                raise self.final
            if not is_told:
                self.tell(f"{failure}; trying again for up to {self.limit_s:g} s")
                is_told = True


def pauses() -> Iterator[float]:
    """Seconds before each try: twice as long each time, and never the same for two clients."""
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s * random.uniform(0.5, 1)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
