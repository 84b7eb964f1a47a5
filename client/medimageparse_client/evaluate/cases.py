"""What a case is, whatever the layout of its files (`evaluation.md`, section 2)."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medimageparse_client.evaluate.text_prompts import Prompts
from medimageparse_client.evaluate.volume_metrics import Volume

NAMES_OF_MODALITIES = {"autoPET": "PET", "cremi": "Microscopy", "nucmm": "Microscopy"}


class CaseError(Exception):
    """One case cannot be asked or scored; the text is one sentence. The other cases go on."""


@dataclass(frozen=True)
class VolumeQuestion:
    """A 3D case that has been read.

    volume: the path of a NIfTI file, or uint8 [x,y,z] with `affine`
    options: of the request (intensity, orientation, slice_axis)
    prompts: label in the truth -> sentence, by ascending label; all are asked in one request
    names: label -> name of the structure, where it has one
    truth: labels [D,H,W] = the stored axes (z,y,x)
    spacing: mm (x,y,z)
    """

    volume: Path | npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64] | None
    options: Mapping[str, str]
    prompts: Mapping[int, str]
    names: Mapping[int, str]
    is_instance: bool
    truth: Volume
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class VolumeCase:
    """A 3D case that has not been read; `prompts` and `load` raise CaseError."""

    name: str
    modality: str
    data_set: str
    image: Path
    truth: Path | None
    prompts: Callable[[], Prompts] = field(repr=False)
    load: Callable[["Sentences"], VolumeQuestion] = field(repr=False)


@dataclass(frozen=True)
class Annotation:
    """One mask of an image: what is asked, and where the answer lies."""

    task: str  # MODALITY_SITE_TARGET
    modality: str
    site: str
    target: str
    sentences: tuple[str, ...]
    mask: Path
    category: str  # the name that the data set gives it; "" if none


@dataclass(frozen=True)
class ImageCase:
    """A 2D case: an image with its masks, and the targets that it does not have."""

    name: str
    data_set: str
    image: Path
    annotations: tuple[Annotation, ...]
    absent: tuple[str, ...]  # tasks of the set, of the same modality and site, without a mask on this image


Case = VolumeCase | ImageCase


@dataclass(frozen=True)
class Sentences:
    """Which sentence is asked: "first" or "random" of several; in 2D also "standard" or "target", of the mask's name.

    The server gives p-values to targets that are asked by their bare names only.
    """

    choice: str = "first"
    seed: int = 0

    def of(self, sentences: tuple[str, ...], name: str, label: object) -> str:
        """One of the sentences; a random one depends on nothing but the seed, the case and the label."""
        if self.choice != "random":
            return sentences[0]
        digest = hashlib.sha256(f"{self.seed}\0{name}\0{label}".encode()).digest()
        return sentences[int.from_bytes(digest[:8], "big") % len(sentences)]


def modality_of(name: str) -> str:
    """The modality that a challenge file's name begins with; another beginning is a row of its own."""
    first = name.split("_", 1)[0]
    return NAMES_OF_MODALITIES.get(first, first)
