"""The files of a volume other than DICOM: what tells them apart, and how they become NIfTI."""

from collections.abc import Callable
from pathlib import Path

from medimageparse_client.formats import voxels
from medimageparse_client.formats.attached import Attached
from medimageparse_client.formats.mha import is_mha, read_mha
from medimageparse_client.formats.nrrd import is_nrrd, read_nrrd

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
READERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Attached]], ...] = (
    (is_nrrd, read_nrrd),
    (is_mha, read_mha),
)


def reader_of(head: bytes) -> Callable[[bytes], Attached] | None:
    """What reads a file that begins so; None for NIfTI, and for what is none of them."""
    return next((read for fits, read in READERS if fits(head)), None)


def recognizes(path: Path) -> bool:
    """Whether the file holds a volume, whatever its name; False for what cannot be read."""
    if voxels.recognizes(path):
        return True
    try:
        if not path.is_file():  # a pipe would be empty afterwards
            return False
        with path.open("rb") as file:
            return reader_of(file.read(voxels.HEAD)) is not None
    except OSError:
        return False
