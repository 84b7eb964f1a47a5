"""A folder, a zip or a file -> the headers of the DICOM files in it, with bounds on what is read."""

import zipfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias, cast

import pydicom

from medimageparse_client.errors import InvalidVolume
from medimageparse_client.formats.dicom_header import PYDICOM_ERRORS
from medimageparse_client.formats.dicom_series.deflated import unpacked_size
from medimageparse_client.formats.dicomweb_address import is_address
from medimageparse_client.formats.first_bytes import HEAD, is_dicom
from medimageparse_client.formats.series import ZIP, files_in

MAX_FILES = 20_000
MAX_BYTES = 4 * 2**30  # of all files, unpacked
ENCRYPTED = 0x1  # a bit of an entry's flags
UNREADABLE_ZIP = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError)

Opener: TypeAlias = Callable[[], BinaryIO]


class Header(NamedTuple):
    """tags: all that stands before the pixels; open: gives the file"""

    tags: pydicom.Dataset
    open: Opener


def find_files(source: str | Path | bytes) -> list[Opener]:
    """What opens each file of a folder, zip, file or DICOMweb address.

    Nothing of a zip is ever written to the disk, so no name in it leads anywhere.
    """
    if isinstance(source, str) and is_address(source):
        return fetch(source)
    if isinstance(source, bytes):
        return find_in_zip(BytesIO(source)) if source.startswith(ZIP) else [partial(BytesIO, source)]
    path = Path(source)
    try:
        if path.is_dir():
            return find_in_folder(path)
        with path.open("rb") as file:
            is_zip = file.read(len(ZIP)) == ZIP
    except OSError as error:
        raise InvalidVolume(f"it cannot be read: {error.strerror or 'no reason given'}") from error
    return find_in_zip(path) if is_zip else [partial(open_file, path)]


def open_file(path: Path) -> BinaryIO:
    return path.open("rb")


def fetch(address: str) -> list[Opener]:
    from medimageparse_client.formats.dicomweb import fetch_series  # only here: requests is slow to import

    return [partial(BytesIO, data) for data in fetch_series(address, MAX_FILES, MAX_BYTES)]


def find_in_folder(folder: Path) -> list[Opener]:
    paths = list(files_in(folder))
    check_bounds(len(paths), sum(path.stat().st_size for path in paths))
    return [partial(open_file, path) for path in paths]


def find_in_zip(file: Path | BinaryIO) -> list[Opener]:
    try:
        archive = zipfile.ZipFile(file)
    except UNREADABLE_ZIP:
        raise InvalidVolume("the zip is damaged or cut short; send it again, whole") from None
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    # no more than the size that an entry names is ever unpacked
    check_bounds(len(entries), sum(entry.file_size for entry in entries))
    if any(entry.flag_bits & ENCRYPTED for entry in entries):
        raise InvalidVolume("the zip is encrypted; unpack it and give the folder")
    return [cast(Opener, partial(archive.open, entry)) for entry in entries]


def check_bounds(n_files: int, n_bytes: int) -> None:
    if n_files > MAX_FILES or n_bytes > MAX_BYTES:
        raise InvalidVolume(
            f"it holds {n_files} files of {n_bytes / 2**30:.1f} GiB, and at most {MAX_FILES} files of "
            f"{MAX_BYTES >> 30} GiB are read; give one series alone"
        )


def read_headers(files: list[Opener], notes: list[str]) -> list[Header]:
    """Of the files that are DICOM, with preamble or without."""
    headers: list[Header] = []
    n_others = n_damaged = n_unpacked = 0
    for opener in files:
        try:
            with opener() as file:
                head = file.read(HEAD)
                if not is_dicom(head):
                    n_others += 1
                    continue
                n_unpacked += unpacked_size(file, head, MAX_BYTES)
                check_bounds(len(files), n_unpacked)
                file.seek(0)
                headers.append(Header(pydicom.dcmread(file, force=True, stop_before_pixels=True), opener))
        except (*PYDICOM_ERRORS, *UNREADABLE_ZIP):
            n_damaged += 1
    if n_others:
        notes.append(f"left out: files that are not DICOM ({n_others})")
    if n_damaged:
        notes.append(f"left out: damaged DICOM files ({n_damaged})")
    return headers


def read_whole(opener: Opener) -> bytes:
    try:
        with opener() as file:
            return file.read()
    except UNREADABLE_ZIP:
        raise InvalidVolume("a file of the series cannot be read to its end; send the series again, whole") from None
