"""How many requests a server has at once: more while it has room, half as many once its queue is full."""

import time


class Window:
    """Additive increase, multiplicative decrease, as TCP does; it doubles until the first refusal.

    most: how many there may be at once, at least 1
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._size = min(2.0, most)
        self._cut_s = 0.0  # time.monotonic() of the last decrease
        self._was_cut = False

    @property
    def size(self) -> int:
        return int(self._size)

    def answered(self, *, was_full: bool) -> None:
        """After an answer. A window that was not used up says nothing about a larger one."""
        if was_full:
            self._size = min(self.most, self._size + (1 / self._size if self._was_cut else 1))

    def refused(self, begun_s: float) -> None:
        """After a refusal of a request that began then; those that were under way at a decrease count as one."""
        if begun_s >= self._cut_s:
            self._size = max(1.0, self._size / 2)
            self._cut_s, self._was_cut = time.monotonic(), True

    def restart(self) -> None:
        """After an outage: one at a time first."""
        self._size, self._was_cut = 1.0, False
