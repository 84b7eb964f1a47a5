"""The features of the last windows, for who asks the same image again: in this process's memory alone, for a while."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Outputs = list[NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Entry:
    outputs: Outputs
    n_bytes: int
    made_s: float


class FeatureCache:
    """Outputs by what they were made of. Those not used for longest go first, and each goes max_seconds after it was
    made, also when nobody asks any more. Safe with several threads; max_bytes 0 keeps nothing.
    """

    def __init__(self, max_bytes: int, max_seconds: float) -> None:
        self.max_bytes, self.max_seconds = max_bytes, max_seconds
        self.entries: OrderedDict[bytes, Entry] = OrderedDict()
        self.n_bytes = 0
        self.lock = threading.Lock()
        self.timer: threading.Timer | None = None

    def find(self, key: bytes) -> Outputs | None:
        with self.lock:
            self._drop_old()
            if key not in self.entries:
                return None
            self.entries.move_to_end(key)
            return self.entries[key].outputs

    def keep(self, key: bytes, outputs: Outputs) -> None:
        """Copies what is a view, since its memory is another's."""
        n_bytes = sum(array.nbytes for array in outputs)
        if n_bytes > self.max_bytes:
            return
        with self.lock:
            self._drop(key)
            while self.n_bytes + n_bytes > self.max_bytes:
                self._drop(next(iter(self.entries)))
            owned = [array if array.flags.owndata else array.copy() for array in outputs]
            self.entries[key] = Entry(owned, n_bytes, time.monotonic())
            self.n_bytes += n_bytes
            self._wait()

    def _drop(self, key: bytes) -> None:
        entry = self.entries.pop(key, None)
        self.n_bytes -= entry.n_bytes if entry else 0

    def _drop_old(self) -> None:
        oldest_s = time.monotonic() - self.max_seconds
        for key in [key for key, entry in self.entries.items() if entry.made_s <= oldest_s]:
            self._drop(key)

    def _wait(self) -> None:
        """Has the next entry that grows too old dropped in time."""
        if self.timer is None and self.entries:
            next_s = min(entry.made_s for entry in self.entries.values()) + self.max_seconds
            self.timer = threading.Timer(max(0.0, next_s - time.monotonic()), self._wake)
            self.timer.daemon = True
            self.timer.start()

    def _wake(self) -> None:
        with self.lock:
            self.timer = None
            self._drop_old()
            self._wait()


def key_of(feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> bytes:
    """SHA-256 of the inputs (names, types, shapes, bytes) and of the outputs that are asked for."""
    digest = hashlib.sha256(repr(list(names)).encode())
    for name, array in feeds.items():
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
