"""Files are written whole or not at all."""

import errno
import os
import secrets
import stat
import unicodedata
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

from PIL import Image

TEMPORARY = ".medimageparse-{}.tmp"
OPEN_FILES = ("/dev/std", "/dev/fd/", "/proc/")  # below these lie names of files that a process has open


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Puts `data` where `path` is, all of it or nothing; OSError names `path`.

    The bytes go into a temporary file in the same folder, which then takes the place of what is there. A link stays a
    link, and its target is replaced: who links results to another disk wants them there. A pipe or a device cannot
    be replaced and gets the bytes directly.
    """
    path = Path(path)
    with named(path):
        if is_stream(path):
            with path.open("ab") as stream:  # appending: behind /dev/fd/3 may lie a file that has something in it
                stream.write(data)
        else:
            place = Path(os.path.realpath(path))
            place.parent.mkdir(parents=True, exist_ok=True)
            replace(place, data)


def replace(place: Path, data: bytes) -> None:
    with becoming(place) as temporary, temporary.open("xb") as file:  # its mode follows the umask
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # or a crash of the machine could leave an empty file under the final name


@contextmanager
def becoming(place: Path) -> Iterator[Path]:
    """A new name in the same folder, which takes the place, and the mode of what is there, when the block ends well."""
    temporary = temporary_name(place.parent)
    try:
        yield temporary
        with suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(place.stat().st_mode))
        temporary.replace(place)
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            temporary.unlink()
        raise


def temporary_name(folder: Path) -> Path:
    """Short, for the final name may be as long as names can be; hidden, so that no folder of inputs counts it."""
    return folder / TEMPORARY.format(secrets.token_hex(8))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `write_file`, for what is written bit by bit: the name to write to. OSError names `path`."""
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with becoming(path) as temporary:
            yield temporary


def check_place(path: Path) -> bool:
    """Whether the file system at `path` takes upper and lower case for the same.

    Raises the OSError that `write_file` would meet there, as far as it can be known; leaves nothing behind.
    """
    with named(path):
        if is_stream(path):
            return False
        place = Path(os.path.realpath(path))
        folder = next(parent for parent in place.parents if parent.exists())
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is a file and no folder")
        for name in place.relative_to(folder).parts:  # the longest name counts, of folders to be made too
            with suppress(FileNotFoundError):
                os.lstat(folder / name)
        check_target(path)
        return try_folder(folder)


def check_target(path: Path) -> None:
    """Raises OSError unless `path` is free, or a file that may be replaced."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "this is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "this is a device or a socket and no file")
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is there and write-protected")


def try_folder(folder: Path) -> bool:
    """As `check_place`, of a folder that exists."""
    probe = temporary_name(folder)
    try:
        probe.touch(exist_ok=False)
    except OSError as error:
        raise OSError(error.errno, f"no file can be made in {folder}: {error.strerror}") from error
    try:
        return probe.with_name(probe.name.upper()).exists()
    finally:
        probe.unlink()


def identity(path: Path, folds_case: bool = False) -> Hashable:
    """Equal for names of one file: links, and for a file that is still to be made, spellings of its name."""
    try:
        status = path.stat()
        return status.st_dev, status.st_ino
    except OSError:
        place = Path(os.path.realpath(path))
        name = unicodedata.normalize("NFC", place.name).casefold() if folds_case else place.name
        return identity(place.parent, folds_case), name


def is_stream(path: Path) -> bool:
    """Whether bytes flow through `path` and do not stay: a pipe, a terminal, /dev/null, or a file that is open."""
    if os.path.abspath(path).startswith(OPEN_FILES):
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def ending_of(path: str | os.PathLike[str], endings: tuple[str, ...]) -> str:
    """The one of `endings`, in small letters, that the name has; "" if none."""
    name = Path(path).name.lower()
    return next((ending for ending in endings if name.endswith(ending)), "")


def picture_bytes(picture: Image.Image, ending: str) -> bytes:
    """The bytes of a file that ends so, for example ".png"."""
    kind = Image.registered_extensions().get(ending.lower())
    if kind is None:
        raise ValueError(f"pictures are not saved as {ending or 'files without an ending'}; .png is one they have")
    file = BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def write_files(folder: str | os.PathLike[str], contents: Mapping[str, bytes]) -> None:
    """Puts each file, by name, into the folder."""
    for name, data in contents.items():
        write_file(Path(folder) / name, data)


def write_picture(picture: Image.Image, path: str | os.PathLike[str] | None) -> Image.Image:
    """The picture, also written where there is a path; the name's ending says as what."""
    if path is not None:
        write_file(path, picture_bytes(picture, Path(path).suffix))
    return picture


@contextmanager
def named(path: Path) -> Iterator[None]:
    """An OSError in the block gets the name that the caller knows."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
