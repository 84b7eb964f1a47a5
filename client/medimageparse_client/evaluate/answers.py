"""Where the answers to cases come from: a running server, or a folder of predictions that somebody made."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image

from medimageparse_client.client import Client
from medimageparse_client.evaluate.cases import Case, CaseError, ImageCase, VolumeCase, VolumeQuestion
from medimageparse_client.evaluate.image_metrics import Mask
from medimageparse_client.evaluate.volume_layouts import member, read_labels
from medimageparse_client.evaluate.volume_metrics import Volume
from medimageparse_client.retry import Retry

MOST_IMAGE_PROMPTS = 16  # that are decoded each alone in one request


@dataclass(frozen=True)
class VolumeAnswer:
    """labels [D,H,W] as the truth has them; scores [P,S] of the slices along `axis` of it, where a server gave them."""

    labels: Volume
    seconds: float = float("nan")
    scores: npt.NDArray[np.float32] | None = None
    axis: int = 0


@dataclass(frozen=True)
class MaskAnswer:
    """One mask [H,W] of an image, and what the server says of it."""

    mask: Mask
    mean_probability: float = float("nan")  # in the mask; 0 if it is empty
    category: str = ""
    p_value: float = float("nan")


@dataclass(frozen=True)
class ImageAnswer:
    masks: list[MaskAnswer]
    seconds: float = float("nan")


class Answers(Protocol):
    """Who answers. `networks` tells which networks did: a run is continued with the same ones only."""

    networks: Mapping[str, Any]

    def of_volume(self, case: VolumeCase, question: VolumeQuestion, prompts: Mapping[int, str]) -> VolumeAnswer: ...

    def of_image(self, case: ImageCase, prompts: Sequence[str], image_type: str | None) -> ImageAnswer: ...


@dataclass
class ServerAnswers:
    """A running server, asked through `connect()`, again and again while it is away or busy."""

    connect: Callable[[], AbstractContextManager[Client]]
    retry: Retry
    networks: Mapping[str, Any] = field(default_factory=dict)

    def of_volume(self, case: VolumeCase, question: VolumeQuestion, prompts: Mapping[int, str]) -> VolumeAnswer:
        def ask() -> VolumeAnswer:
            options: dict[str, Any] = dict(question.options)
            with self.connect() as client:
                start = time.perf_counter()
                result = client.segment(question.volume, list(prompts.values()), affine=question.affine, **options)
                seconds = time.perf_counter() - start
            numbers = np.array([0, *prompts], np.int64)
            axis, scores = result.report["image"]["slice_axis_stored"], result.scores
            if is_reversed(result.report["image"]):
                scores = scores[:, ::-1]
            return VolumeAnswer(numbers[result.label_map].transpose(2, 1, 0), seconds, scores, 2 - axis)

        return self.retry.ask(ask)

    def of_image(self, case: ImageCase, prompts: Sequence[str], image_type: str | None) -> ImageAnswer:
        masks: list[MaskAnswer] = []
        seconds = 0.0
        for first in range(0, len(prompts), MOST_IMAGE_PROMPTS):
            some = list(prompts[first : first + MOST_IMAGE_PROMPTS])
            answer = self.retry.ask(lambda some=some: self._of_prompts(case, some, image_type))  # type: ignore[misc]
            masks += answer.masks
            seconds += answer.seconds
        return ImageAnswer(masks, seconds)

    def _of_prompts(self, case: ImageCase, prompts: list[str], image_type: Any) -> ImageAnswer:
        with self.connect() as client:
            start = time.perf_counter()
            result = client.segment_image(case.image, prompts, image_type=image_type, joint=False)
            seconds = time.perf_counter() - start
        masks = []
        for described, probability, category in zip(
            result.report["prompts"], result.probabilities, result.categories, strict=True
        ):
            mask = probability > 127
            mean = float(probability[mask].mean()) / 255 if mask.any() else 0.0
            p_value = described["p_value"]
            masks.append(MaskAnswer(mask, mean, category, float("nan") if p_value is None else float(p_value)))
        return ImageAnswer(masks, seconds)


def is_reversed(image: Mapping[str, Any]) -> bool:
    """Whether the slices of the scores run against the stored axis: that axis was turned to LAS."""
    stored = image["stored_orientation"]
    return image["orientation"] == "LAS" and stored is not None and stored[image["slice_axis_stored"]] not in "LAS"


@dataclass
class PredictedFiles:
    """A folder of predictions: `.npz` with `segs`, NIfTI label maps, or mask PNGs, under the names of the truths."""

    folder: Path
    networks: Mapping[str, Any] = field(default_factory=dict)

    def of_volume(self, case: VolumeCase, question: VolumeQuestion, prompts: Mapping[int, str]) -> VolumeAnswer:
        path = self.folder / case.image.name
        if not path.exists():
            raise CaseError("there is no prediction of this name")
        labels = member(path, "segs") if path.suffix == ".npz" else read_labels(path)[0]
        if labels.shape != question.truth.shape or labels.dtype.kind not in "iu":
            raise CaseError(f"the prediction is {labels.dtype} {labels.shape}; the truth has {question.truth.shape}")
        return VolumeAnswer(labels)

    def of_image(self, case: ImageCase, prompts: Sequence[str], image_type: str | None) -> ImageAnswer:
        masks = (read_mask(self.folder / annotation.mask.name) for annotation in case.annotations)
        return ImageAnswer([MaskAnswer(mask) for mask in masks])


def read_mask(path: Path) -> Mask:
    """A mask [H,W] of a picture: where the sum of the channels is above 0."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB") if picture.mode not in ("L", "1", "I;16", "RGB") else picture)
    except FileNotFoundError:
        raise CaseError("there is no mask of this name") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise CaseError("a mask is not a readable picture") from error
    return np.asarray(pixels.astype(np.int64).reshape(*pixels.shape[:2], -1).sum(-1) > 0)


def saved_names(case: Case) -> list[str]:
    """The files that an answer is saved in."""
    if isinstance(case, ImageCase):
        return [annotation.mask.name for annotation in case.annotations]
    return [case.image.name]


def save_volume(folder: Path, case: VolumeCase, question: VolumeQuestion, answer: VolumeAnswer) -> None:
    """Writes an answer as `PredictedFiles` and the official script read it."""
    path = folder / case.image.name
    labels = answer.labels.astype(np.uint8 if max(question.prompts) < 256 else np.uint16)
    if path.suffix == ".npz":
        np.savez_compressed(path, segs=labels)
    else:
        reference = nib.load(case.image)
        nib.save(nib.Nifti1Image(labels.transpose(2, 1, 0), reference.affine), path)  # type: ignore[attr-defined]


def save_image(folder: Path, case: ImageCase, answer: ImageAnswer) -> None:
    for annotation, given in zip(case.annotations, answer.masks, strict=False):
        Image.fromarray(given.mask.astype(np.uint8) * 255).save(folder / annotation.mask.name)
