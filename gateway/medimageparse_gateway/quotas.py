"""What a key may send: so many requests a minute, and so many at once. Counted by this gateway alone, in memory."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from medimageparse_gateway.errors import HttpError
from medimageparse_gateway.settings import Key

Clock: TypeAlias = Callable[[], float]  # seconds that never go back, from any beginning


class Places:
    """How many requests are under way, and how many may be. For one event loop, so nothing is locked."""

    def __init__(self, most: int, sentence: str, reason: str) -> None:
        """sentence and reason: for the caller and for the metrics, where none is free."""
        self.most, self.sentence, self.reason = most, sentence, reason
        self.taken = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """While a request is under way, its answer included. HttpError 429 where no place is free."""
        if self.taken >= self.most:
            raise too_many(self.reason, self.sentence)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class Quota:
    """One key's: a few numbers, however many requests come."""

    def __init__(self, key: Key, clock: Clock = time.monotonic) -> None:
        self.key, self.clock = key, clock
        most = key.requests_at_once
        sentence = f"this key may have {most} requests under way; send the next one when one has ended"
        self.places = Places(most, sentence, "at_once")
        self.left, self.counted_s = float(key.requests_per_minute), clock()

    def count(self) -> None:
        """Counts a request against the rate. HttpError 429 where there were too many; that one is not counted.

        A key that was quiet for a minute may send a minute's requests in one go.
        """
        per_minute, now_s = self.key.requests_per_minute, self.clock()
        self.left = min(self.left + (now_s - self.counted_s) * per_minute / 60, per_minute)
        self.counted_s = now_s
        if self.left < 1:
            wait_s = math.ceil((1 - self.left) * 60 / per_minute)
            raise too_many("rate", f"this key may send {per_minute} requests a minute; try again later", wait_s)
        self.left -= 1


def too_many(reason: str, sentence: str, wait_s: int = 1) -> HttpError:
    return HttpError(429, sentence, {"Retry-After": str(wait_s)}, reason)
