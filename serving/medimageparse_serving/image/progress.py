"""How many tiles of a picture are done, for a caller who watches it."""

import json
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


class Progress:
    """Counts tiles, and prompts that are likelier than 0.5 somewhere in them; tells it as JSON, at the start too."""

    def __init__(self, prompts: list[str], n_tiles: int, tell: Callable[[str], None]) -> None:
        self.prompts, self.n_tiles, self.tell = prompts, n_tiles, tell
        self.n_done, self.is_found = 0, np.zeros(len(prompts), np.bool_)
        self._tell()

    def add(self, mask_logits: NDArray[np.float32]) -> None:
        """Those [P,s,s] of the next tile."""
        self.is_found |= (mask_logits > 0).any((1, 2))
        self.n_done += 1
        self._tell()

    def _tell(self) -> None:
        found = [prompt for prompt, is_found in zip(self.prompts, self.is_found, strict=True) if is_found]
        self.tell(json.dumps({"tiles_done": self.n_done, "tiles": self.n_tiles, "prompts_found": found}))
