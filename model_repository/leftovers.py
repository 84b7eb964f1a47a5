"""What a server keeps in /tmp and /dev/shm, and how the next start finds what a killed one left there.

Whoever serves holds a lock on SHM/<name>-lock; a lock that can be taken belongs to nobody any more.
"""

import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import IO

SHM = Path("/dev/shm")
PREFIX = "medimageparse-"
LOCK = "lock"


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
    shutil.rmtree(Path(tempfile.gettempdir()) / name, ignore_errors=True)


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
