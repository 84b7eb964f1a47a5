"""One line per tensor: how far it is from the recorded one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Golden = Mapping[str, np.ndarray]  # what a recorded file holds

TENSOR_TOLERANCE = 1e-4
LABEL_TOLERANCE = 0.0005
# Rounding grows from layer to layer of the mask decoder: in v2_tiny the original's float32 is 1.1e-4 away from float64
# in the logits of single queries, before they are averaged (ours 6e-5). States inside the decoder are therefore
# measured against their largest magnitude; everything that leaves a network is measured as it is.
INSIDE_DECODER = ("layer_", "all_query_mask_logits", "query_states", "pred_masks", "pred_logits")


class Report:
    """Prints one line per tensor and remembers whether all were within the tolerance."""

    def __init__(self, golden: Golden):
        self.golden = golden
        self.passed = True

    def tensor(self, name: str, found: np.ndarray) -> None:
        """Compares with the recorded tensor of that name, if the file has it."""
        if name in self.golden:
            inside = name.rpartition("/")[2].startswith(INSIDE_DECODER)
            scale = max(1.0, float(np.abs(self.golden[name]).max())) if inside else 1.0
            self.within(name, self.golden[name], found, scale)

    def within(
        self, name: str, expected: Any, found: Any, scale: float = 1.0, tolerance: float = TENSOR_TOLERANCE
    ) -> None:
        expected, found = np.asarray(expected, np.float64), np.asarray(found, np.float64)
        error = np.abs(found - expected).max(initial=0) if expected.shape == found.shape else np.inf
        text = f"{error:.2e}" if scale == 1 else f"{error:.2e} of {scale:.1f}"
        self.line(name, expected.shape, error, scale * tolerance, text)

    def labels(self, name: str, found: np.ndarray) -> None:
        """As `tensor`, for label maps: the share of voxels that differ."""
        if name in self.golden:
            expected = self.golden[name]
            same_shape = expected.shape == found.shape
            share = float(np.mean(found != expected) if same_shape and expected.size else not same_shape)
            self.line(name, expected.shape, share, LABEL_TOLERANCE, f"{100 * share:.4f} % differ")

    def same(self, name: str, expected: object, found: object) -> None:
        self.line(name, (), float(expected != found), 0, f"{found}")

    def skipped(self, name: str, reason: str) -> None:
        print(f"{name:<44} not compared: {reason}")

    def line(self, name: str, shape: tuple[int, ...], error: float, tolerance: float, text: str) -> None:
        within = bool(error <= tolerance)
        self.passed &= within
        print(f"{name:<44} {str(list(shape)):<24} {text:<18} {'ok' if within else 'FAILED'}")
