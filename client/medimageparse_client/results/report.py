"""What this package reads out of the server's reports; a report has more, and callers get all of it as it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from medimageparse_client.errors import UnknownPrompt

Report: TypeAlias = dict[str, Any]
Row: TypeAlias = tuple[float, float, float, float]
Facts = TypeVar("Facts")


@dataclass(frozen=True)
class Intensity:
    """
    used: how the values were brought to 0..255
    bounds: those that became black and white
    padding: those that are black wherever they lie
    """

    used: str
    bounds: tuple[float, float] | None
    padding: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f"{self.used} {bounds_words(self.bounds)}".strip()


@dataclass(frozen=True)
class Lost:
    """On `slices` slices the prompt of `label` has what two prompts found."""

    label: int
    slices: int


@dataclass(frozen=True)
class Drawn:
    """What several draws of a prompt say: volumes as "mean", "minimum", "maximum", and the mean Dice of every two."""

    volume_ml: dict[str, float]
    dice: float


@dataclass(frozen=True)
class VolumePrompt:
    """
    volume_ml: None where the size of a voxel is not known
    why_absent: None for a prompt that is present, and from a server that does not tell
    draws, instances: None where nobody asked for them
    """

    present: bool
    highest_score: float
    voxels: int
    volume_ml: float | None
    truncated: bool
    text: str = ""
    why_absent: str | None = None
    lost_to: tuple[Lost, ...] = ()
    draws: Drawn | None = None
    instances: tuple[dict[str, Any], ...] | None = None


@dataclass(frozen=True)
class VolumeImage:
    """
    affine: voxels to millimetres (RAS+)
    sides_known: whether the file says how the patient lies
    orientation: in which the slices were cut
    slice_axis_stored: which of x, y, z goes from slice to slice
    """

    affine: tuple[Row, Row, Row, Row]
    sides_known: bool
    stored_orientation: str | None
    orientation: str
    slice_axis_stored: Literal[0, 1, 2]
    intensity: Intensity


@dataclass(frozen=True)
class VolumeFacts:
    """The report on a volume."""

    prompts: tuple[VolumePrompt, ...]
    image: VolumeImage
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImagePrompt:
    """p_value: None for a prompt that the image type does not know"""

    text: str
    present: bool
    area_pixels: int
    highest_probability: float
    category: str
    p_value: float | None
    truncated: bool


@dataclass(frozen=True)
class Rejected:
    """What a recognition left out."""

    text: str
    reason: str


@dataclass(frozen=True)
class Picture:
    """
    exif_orientation: how the file says that it is to be turned; 1 is upright
    tiles: in which the networks saw it
    """

    exif_orientation: int
    intensity: Intensity
    tiles: int = 1


@dataclass(frozen=True)
class DicomUse:
    """What the client did to a DICOM slice: `window` is None for percentiles, values outside `bounds` are cut off."""

    window: str | None
    bounds: tuple[float, float]
    inverted: bool

    def __str__(self) -> str:
        return f"DICOM window {self.window or 'percentile'} {bounds_words(self.bounds)}{' | inverted' * self.inverted}"


@dataclass(frozen=True)
class SliceUse:
    """What the client did to a slice of a volume: `window` is None for percentiles, values outside `bounds` cut off."""

    number: int
    axis: int
    plane: str
    window: str | None
    bounds: tuple[float, float]

    def __str__(self) -> str:
        place = f"slice {self.number} along axis {self.axis} ({self.plane})"
        return f"{place} | window {self.window or 'percentile'} {bounds_words(self.bounds)}"


@dataclass(frozen=True)
class ImageFacts:
    """The report on an image."""

    prompts: tuple[ImagePrompt, ...]
    rejected: tuple[Rejected, ...]
    image: Picture
    warnings: tuple[str, ...] = ()
    dicom: DicomUse | None = None
    slice: SliceUse | None = None


def facts_of(report: Report, kind: type[Facts]) -> Facts:
    """Raises msgspec.ValidationError, which says where a report is not as the contract has it."""
    return msgspec.convert(report, kind)


def bounds_words(bounds: tuple[float, float] | None) -> str:
    return f"{bounds[0]:g}..{bounds[1]:g}" if bounds else ""


def labels_of(prompts: Iterable[str]) -> dict[str, int]:
    """Prompt -> label; of a repeated prompt the first."""
    labels: dict[str, int] = {}
    for label, prompt in enumerate(prompts, start=1):
        labels.setdefault(prompt, label)
    return labels


def label_of(labels: Mapping[str, int], prompt: str) -> int:
    """The label of a prompt; UnknownPrompt for one that is not there."""
    if prompt not in labels:
        raise UnknownPrompt(f"the result has no prompt {prompt!r}; it has {', '.join(map(repr, labels)) or 'none'}")
    return labels[prompt]
