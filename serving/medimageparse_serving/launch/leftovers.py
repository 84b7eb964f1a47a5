"""What a server keeps in /tmp and /dev/shm, and how the next start finds what a killed one left there.

Whoever serves holds a lock on SHM/<name>-lock; a lock that can be taken belongs to nobody any more.
"""

import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import IO

from medimageparse_serving.launch.launch_errors import ServeError

SHM = Path("/dev/shm")
PREFIX = "medimageparse-"
LOCK = "lock"
# what a shell takes as it stands, in any locale, and what LD_LIBRARY_PATH does not split
PLAIN = re.compile(r"[A-Za-z0-9_./+,=@%-]+")


def temporary_folder() -> Path:
    """TMPDIR, or /tmp where its name is not plain."""
    folder = tempfile.gettempdir()
    return Path(folder if PLAIN.fullmatch(folder) else "/tmp")


class Scratch:
    """A new folder for temporary files, its path plain; its name begins the names of its owner's shared memory."""

    def __init__(self) -> None:
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=temporary_folder()))
        except OSError as error:
            raise ServeError(f"no folder for temporary files can be made: {error.strerror}; see TMPDIR") from None
        self.name = self.folder.name
        try:
            self.claim = claim(self.name)
        except OSError as error:
            remove(self.name)
            raise ServeError(f"{SHM} cannot be written: {error.strerror}") from None

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes the folder and the shared memory."""
        remove(self.name)
        self.claim.close()


def plain_link(folder: Path, name: str, target: str | os.PathLike[str]) -> Path:
    """A link in the folder: a plain path to the target, whatever that is called."""
    link = folder / name
    link.symlink_to(target)
    return link


def claim(name: str, shm: Path = SHM) -> IO[bytes]:
    """Marks what begins with `name` as in use, as long as the file stays open."""
    unseen = shm / f".{name}-{LOCK}"
    file = unseen.open("wb")
    fcntl.flock(file, fcntl.LOCK_EX)
    unseen.rename(shm / f"{name}-{LOCK}")  # seen only when it is locked
    return file


def remove(name: str, shm: Path = SHM) -> None:
    """Removes the scratch folder and the shared memory of one server."""
    for region in shm.glob(f"{name}-*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(temporary_folder() / name, ignore_errors=True)


def sweep(shm: Path = SHM) -> list[str]:
    """Removes what servers left that were killed; gives their names."""
    swept = []
    for lock in shm.glob(f"{PREFIX}*-{LOCK}"):
        try:
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                name = lock.name.removesuffix(f"-{LOCK}")
                remove(name, shm)
                swept.append(name)
        except OSError:  # in use, another user's, or swept by someone else
            continue
    return swept
