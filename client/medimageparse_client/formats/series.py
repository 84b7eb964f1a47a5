"""A DICOM series as one volume, and what can be one. Needs nothing of the extra `dicom`."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from medimageparse_contract.options import Intensity

from medimageparse_client.formats.body_part import AUTO, sets_of
from medimageparse_client.formats.dicomweb_address import is_address
from medimageparse_client.formats.first_bytes import HEAD, is_dicom, read_head

if TYPE_CHECKING:
    import pydicom

ZIP = b"PK\x03\x04"
PERCENTILE = ("MR", "PT", "NM")  # modalities whose values have no unit that a window could be in


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """A series as one volume; nothing of the patient stands in `volume`.

    volume: voxels [x,y,z] as values (Hounsfield units in CT) with the affine to millimetres (RAS+); x goes along the
        rows of a slice, y down its columns, z from slice to slice along their normal
    sources: the headers without pixels: one for each slice, in the order of z, or the one of a multi-frame file
    notes: what was left out or assumed, as sentences for the report
    modality: CT, MR, PT, ...
    is_resampled: whether a gantry tilt was taken out, so that the voxels are not those of `sources`
    positions: float64 [D,3], centre of the first pixel of each slice in mm (LPS), in the order of z
    frames: which frame of its file each slice is, from 1, in the order of z; of single files always 1
    """

    volume: nib.Nifti1Image = field(repr=False)
    sources: "tuple[pydicom.Dataset, ...]" = field(repr=False)
    notes: tuple[str, ...] = ()
    modality: str = ""
    is_resampled: bool = False
    positions: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)), repr=False)
    frames: tuple[int, ...] = field(default=(), repr=False)

    @property
    def is_multi_frame(self) -> bool:
        """Whether all slices are frames of one file."""
        return len(self.sources) != len(self.positions)

    @property
    def intensity(self) -> Intensity:
        """How its values become grey where nobody names another way."""
        if self.modality == "CT":
            return "ct-soft-tissue"
        return "percentile" if self.modality in PERCENTILE else "auto"

    def describe(self, asked: Intensity, preset: str | None = None) -> dict[str, Any]:
        """What the report says under `dicom`, where `asked` is what the caller wants, and `preset` too.

        Raises InvalidRequest where `preset` is "auto" and the series does not say what it shows.
        """
        used = self.intensity if asked == "auto" else asked
        described = {
            "modality": self.modality,
            "slices": self.volume.shape[2],
            "intensity": used,
            "intensity_by": "caller" if asked != "auto" else "modality" if used != "auto" else "values",
            "resampled": self.is_resampled,
        }
        if preset is None:
            return described
        preset_by = "modality and body part" if preset == AUTO else "caller"
        return described | {"preset": sets_of(preset, self.modality, self.sources[0]), "preset_by": preset_by}


def holds_series(volume: Any) -> bool:
    """Whether it is a DICOMweb address, a folder with DICOM files, a zip or a DICOM file; of a name, by the content."""
    if is_address(volume):
        return True
    if isinstance(volume, bytes | bytearray | memoryview):
        return is_series_file(bytes(volume[:HEAD]))
    if not isinstance(volume, str | os.PathLike):
        return False
    path = Path(volume)
    try:
        return holds_dicom(path) if path.is_dir() else is_series_file(read_head(path))
    except OSError:
        return False  # reading it tells what is wrong


def is_series_file(head: bytes) -> bool:
    return head.startswith(ZIP) or is_dicom(head)


def holds_dicom(folder: Path, *, below: bool = True) -> bool:
    """Whether there is DICOM in a folder, or in those below it."""
    paths = files_in(folder) if below else folder.iterdir()
    return any(is_dicom(read_head(path)) for path in paths if os.access(path, os.R_OK))


def files_in(folder: Path) -> Iterable[Path]:
    """Of all folders in it too; links to folders are not followed, hidden files are none."""
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and path.is_file():
                yield path
