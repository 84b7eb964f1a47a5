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
    passes: Sequence[NDArray[np.float32]],
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

    passes: text_features of the prompts that are decoded together; a voxel that one pass takes is free for none later
    """
    _, volume = volumes.popitem()
    label_slices = np.empty(volume.shape, np.uint8)
    n_prompts = sum(map(len, passes))
    scores = np.empty((n_prompts, len(volume)), np.float32)
    lost_to = np.empty(scores.shape, np.uint8)
    prompted = [
        {
            "text_features": np.tile(text_features, (n_draws, 1, 1)),
            "noise_fields": np.repeat(np.arange(n_draws, dtype=np.int64), len(text_features)),
        }
        for text_features in passes
    ]
    outputs = [*LABELLED, *(name for reader in readers for name in reader.outputs)]
    in_flight: deque[tuple[range, int, Any]] = deque()
    # a pass after the other on each window, whose features the image encoder may still know
    plan = (
        (slices, window, first, inputs)
        for slices, window in iterate_windows(volume, window_size, image_size)
        for first, inputs in zip(np.cumsum([0, *map(len, passes)]).tolist(), prompted, strict=False)
    )
    try:
        for slices, window, first, inputs in plan:
            tensors = as_tensors(by_digits(window) | inputs)
            in_flight.append((slices, first, calls.start("window_model", outputs, tensors)))
            is_last = slices.stop == len(volume) and inputs is prompted[-1]
            # the next windows are made while these are computed; after the last one all are awaited
            while len(in_flight) == windows_in_flight or (in_flight and is_last):
                done, first, finish = in_flight.popleft()
                found = await finish()
                for reader in readers:
                    found = reader.read(done, found)
                where, which = slice(done.start, done.stop), slice(first, first + found["scores"].shape[1])
                put_labels(from_square(found["label_slices"], *volume.shape[1:]), first, label_slices[where])
                scores[which, where] = found["scores"].T
                lost_to[which, where] = np.where(found["lost_to"], found["lost_to"] + np.uint8(first), 0).T
                if progress and which.stop == n_prompts:
                    progress.add(label_slices[where])
    finally:
        for *_, finish in in_flight:  # of a request that ends early: the networks are busy until then
            with contextlib.suppress(RequestEnded):
                await finish()
    return label_slices, scores, lost_to


def put_labels(labels: NDArray[np.uint8], first: int, label_slices: NDArray[np.uint8]) -> None:
    """Labels of a pass, counted from its first prompt, where those before it left the voxels free."""
    if first == 0:
        label_slices[...] = labels
        return
    is_free = (label_slices == 0) & (labels > 0)
    label_slices[is_free] = labels[is_free] + np.uint8(first)
