"""The window loop: a volume's slices go through the networks window by window, and come back as labels."""

import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medimageparse_serving.triton.pipeline import Arrays, Calls, RequestEnded
from medimageparse_serving.triton.tensors import as_tensors
from medimageparse_serving.volume.progress import Progress
from medimageparse_serving.volume.sliding_window import by_digits, from_square, iterate_windows

LABELLED = ("label_slices", "scores", "lost_to")


class Reader(Protocol):
    """What more is made of each window, for callers who ask for more than labels."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Those of the window model that it reads besides the labels."""

    def read(self, slices: range, found: Arrays) -> Arrays:
        """The outputs of a window, some perhaps replaced."""


async def segment_volume(
    calls: Calls,
    volumes: dict[str, NDArray[Any]],
    text_features: NDArray[np.float32],
    *,
    n_draws: int,
    window_size: int,
    windows_in_flight: int,
    image_size: int,
    progress: Progress | None = None,
    readers: Sequence[Reader] = (),
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """The one volume [D,H,W] and text_features [P,T,C] -> label_slices [D,H,W], scores [P,D], lost_to [P,D].

    The volume is taken out of `volumes`, so that its memory goes when the loop ends. The readers see each window.
    """
    _, volume = volumes.popitem()
    label_slices = np.empty(volume.shape, np.uint8)
    scores = np.empty((len(text_features), len(volume)), np.float32)
    lost_to = np.empty(scores.shape, np.uint8)
    n_prompts = len(text_features)
    prompted = {
        "text_features": np.tile(text_features, (n_draws, 1, 1)),
        "noise_fields": np.repeat(np.arange(n_draws, dtype=np.int64), n_prompts),
    }
    outputs = [*LABELLED, *(name for reader in readers for name in reader.outputs)]
    in_flight: deque[tuple[range, Any]] = deque()
    try:
        for slices, window in iterate_windows(volume, window_size, image_size):
            tensors = as_tensors(by_digits(window) | prompted)
            in_flight.append((slices, calls.start("window_model", outputs, tensors)))
            # the next windows are made while these are computed; after the last one all are awaited
            while len(in_flight) == windows_in_flight or (in_flight and slices.stop == len(volume)):
                done, finish = in_flight.popleft()
                found = await finish()
                for reader in readers:
                    found = reader.read(done, found)
                labels = from_square(found["label_slices"], *volume.shape[1:])
                label_slices[done.start : done.stop] = labels
                scores[:, done.start : done.stop] = found["scores"].T
                lost_to[:, done.start : done.stop] = found["lost_to"].T
                if progress:
                    progress.add(labels)
    finally:
        for _, finish in in_flight:  # of a request that ends early: the networks are busy until then
            with contextlib.suppress(RequestEnded):
                await finish()
    return label_slices, scores, lost_to
