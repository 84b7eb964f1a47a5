"""Asks again by itself when the server was away: a request changes nothing there, and its answer is always the same.

gRPC's own repeating would do for requests up to 256 KiB only, and not over HTTP.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from medimageparse_client.errors import AccessDenied, ServerUnavailable
from medimageparse_client.retry import pauses

RETRIES, RETRY_FOR_S = 10, 60.0

Answer = TypeVar("Answer")
log = logging.getLogger("medimageparse_client")


class Repeat:
    """
    retries: how often a request is sent again at most; 0 never
    retry_for_s: seconds that one request waits before further tries, all its pauses together
    """

    def __init__(self, retries: int, retry_for_s: float) -> None:
        if retries < 0 or not retry_for_s >= 0:
            raise ValueError("retries and retry_for_s are 0 or more")
        self.retries, self.retry_for_s = retries, retry_for_s
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends a wait of another thread at once."""
        self._stopped.set()

    @contextmanager
    def once(self) -> Iterator[None]:
        """In the block nothing is sent again: it is to be seen how the server is."""
        usual, self.retries = self.retries, 0
        try:
            yield
        finally:
            self.retries = usual

    def ask(self, request: Callable[[float], Answer], timeout_s: float) -> Answer:
        """The answer to `request`, which gets the seconds that are left of `timeout_s`, all tries together.

        Raises its last error; a caller's mistake, a failed step and a time-out are not tried again.
        """
        deadline, left_s, waited_s = time.monotonic() + timeout_s, timeout_s, 0.0
        for n_failed, pause_s in enumerate(pauses(), start=1):
            try:
                return request(left_s)
            except AccessDenied:
                raise
            except ServerUnavailable as error:
                waited_s += pause_s
                left_s = deadline - time.monotonic() - pause_s
                if n_failed > self.retries or waited_s > self.retry_for_s or left_s <= 0:
                    raise
                if n_failed == 1:
                    log.warning("%s; trying again for up to %g s", error, min(self.retry_for_s, left_s))
                if self._stopped.wait(pause_s):
                    raise
        raise AssertionError("pauses never end")
