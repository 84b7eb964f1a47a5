"""The first bytes of a file, and whether they are those of DICOM."""

from pathlib import Path
from typing import Literal

DICOM_MAGIC = slice(128, 132), b"DICM"
HEAD = 400  # bytes that tell what a file is


def read_head(path: Path) -> bytes:
    """What tells what a file is; nothing of a pipe, which would be empty afterwards."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(HEAD)


def is_dicom(data: bytes) -> bool:
    """Whether a file begins as DICOM files do, with preamble or without."""
    place, magic = DICOM_MAGIC
    return data[place] == magic or any(begins_with_elements(data, order) for order in ("little", "big"))


def begins_with_elements(data: bytes, order: Literal["little", "big"]) -> bool:
    """Whether two DICOM elements come first: one of group 2 or 8, and one of the same or a later group."""
    is_explicit = data[4:6].isalpha() and data[4:6].isupper()
    length = data[6:8] if is_explicit else data[4:8]
    second = 8 + int.from_bytes(length, order)
    group, next_group = (int.from_bytes(data[at : at + 2], order) for at in (0, second))
    return group in (0x2, 0x8) and len(data) >= second + 8 and group <= next_group <= 0x28
