"""How far the window loop is, for a caller who watches it."""

import json
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

MOST_STEPS = 100  # told of one volume, so that a caller who does not read keeps little memory


class Progress:
    """Counts slices and the prompts found in them, and tells it as JSON: at the start, on the way, at the end."""

    def __init__(self, prompts: list[str], n_slices: int, tell: Callable[[str], None]) -> None:
        self.prompts, self.n_slices, self.tell = prompts, n_slices, tell
        self.step = math.ceil(n_slices / MOST_STEPS)
        self.n_done, self.next_told = 0, 0
        self.has_voxels = np.zeros(256, np.bool_)  # by label; 0 is none of the prompts
        self._tell_if_due()

    def add(self, label_slices: NDArray[np.uint8]) -> None:
        """The labels [S,H,W] of the next slices."""
        for labels in label_slices:
            self.has_voxels |= np.bincount(labels.ravel(), minlength=256) > 0
        self.n_done += len(label_slices)
        self._tell_if_due()

    def _tell_if_due(self) -> None:
        if self.next_told <= self.n_done or self.n_done == self.n_slices:
            self.next_told = self.n_done + self.step
            found = [prompt for label, prompt in enumerate(self.prompts, start=1) if self.has_voxels[label]]
            self.tell(json.dumps({"slices_done": self.n_done, "slices": self.n_slices, "prompts_found": found}))
