"""One volume of a cohort, and what is asked of it."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from medimageparse_contract.options import Intensity, Maps, Orientation

from medimageparse_client.client import Client
from medimageparse_client.formats.dicomweb_address import is_address
from medimageparse_client.inputs import SliceAxis
from medimageparse_client.results.segmentation import Segmentation
from medimageparse_client.results.segmented import SegType
from medimageparse_client.results.writers import check_can_refer

LONGEST_ID = 200  # bytes of one part of it; what ends a file's name comes after it


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a volume, and as what it is written; `Client.segment` says what the options are.

    asked: sentence -> the catalogue's id or name that it was made of, in pairs; empty where nobody named one
    ending: of the result's file
    overlap: whether structures are whole and may overlap, where the file can hold that
    """

    prompts: tuple[str, ...] | None
    preset: str | None
    asked: tuple[tuple[str, str], ...] = ()
    intensity: Intensity = "auto"
    orientation: Orientation = "LAS"
    slice_axis: SliceAxis = "auto"
    time_point: int | None = None
    series: str | None = None
    allow_gaps: bool = False
    resample_tilt: bool = False
    ending: str = ".nii.gz"
    seg_type: SegType = "binary"
    overlap: bool = False

    def digest(self) -> str:
        """SHA-256 of all of it: equal wishes for equal volumes have equal results."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def ask(self, client: Client, source: Path | str) -> Segmentation:
        """Segments one volume; raises MedImageParseError or OSError."""
        check_can_refer(self.ending, source)
        whole: Maps | None = "masks" if self.overlap else None
        return client.segment(
            source,
            self.prompts,
            preset=self.preset,
            intensity=self.intensity,
            orientation=self.orientation,
            slice_axis=self.slice_axis,
            time_point=self.time_point,
            maps="probabilities" if self.seg_type == "fractional" else whole,
            series=self.series,
            allow_gaps=self.allow_gaps,
            resample_tilt=self.resample_tilt,
        )


@dataclass(frozen=True, slots=True)
class Case:
    """
    id: names its files, below a folder where it has a /
    source: a file, a folder of one series, or the address of one
    """

    id: str
    source: Path | str
    wish: Wish


class WrongCases(ValueError):
    """The message says what is wrong with the list of cases, and names no file."""


def source_of(text: str, folder: Path) -> Path | str:
    """What a cell of a manifest names; a relative path begins at the manifest's folder."""
    return text if is_address(text) else folder / Path(text).expanduser()


def check_id(text: str) -> str:
    """The id in one form of Unicode; WrongCases for what cannot name a file below the results' folder."""
    name = unicodedata.normalize("NFC", text)
    parts = name.split("/")
    is_plain = name.isprintable() and "\\" not in name and not name.startswith("~")
    if not is_plain or any(not part or part.startswith(".") or part != part.strip() for part in parts):
        raise WrongCases("the id cannot name a file: use letters, digits, - and _, and / for folders")
    if max(len(part.encode()) for part in parts) > LONGEST_ID:
        raise WrongCases(f"the id has a part of more than {LONGEST_ID} bytes; give a shorter one")
    return name


def check_unique(ids: Iterable[tuple[str, str]]) -> None:
    """Each id once, upper and lower case alike, and none that is a folder of another; (id, where it stands)."""
    seen: dict[str, str] = {}
    for name, place in ids:
        folded = name.casefold()
        if folded in seen:
            raise WrongCases(f"{place} has the id of {seen[folded]}; give each case one of its own in the column id")
        seen[folded] = place
