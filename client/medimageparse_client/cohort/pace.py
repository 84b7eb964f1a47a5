"""How far a cohort is: how many of how many, how fast, and how long it still takes."""

import time
from collections import Counter
from collections.abc import Callable

from tqdm import tqdm

from medimageparse_client.cohort.run import State


class Pace:
    """A line that is drawn anew on a terminal; elsewhere, as in the log of a Job, one every `every_s` seconds.

    What was there before the run does not count for the rate.
    """

    def __init__(self, total: int, every_s: float, tell: Callable[[str], None], *, is_quiet: bool) -> None:
        self.total, self.every_s, self.tell, self.is_quiet = total, every_s, tell, is_quiet
        self.states: Counter[State] = Counter()
        self._begun_s = self._told_s = time.monotonic()
        self._bar = tqdm(total=0, bar_format="{desc}", leave=False, disable=True if is_quiet else None)

    def add(self, state: State) -> None:
        self.states[state] += 1
        now = time.monotonic()
        if not self._bar.disable:
            self._bar.set_description_str(self.words(now))
        elif not self.is_quiet and now - self._told_s >= self.every_s:
            self._told_s = now
            self.tell(self.words(now))

    def words(self, now: float) -> str:
        asked = self.states["done"] + self.states["failed"]
        past = asked + self.states["there"] + self.states["failed before"]
        failed = self.states["failed"] + self.states["failed before"]
        rate = asked / max(now - self._begun_s, 1e-9)
        pace = f", {rate * 60:.3g} a minute, {duration((self.total - past) / rate)} left" if asked else ""
        return f"{past} of {self.total} volumes, {failed} failed{pace}"

    def close(self) -> None:
        self._bar.close()


def duration(seconds: float) -> str:
    """Two numbers at most: 40 s, 5 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
