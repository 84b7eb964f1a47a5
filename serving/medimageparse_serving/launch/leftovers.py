"""What a server keeps in /tmp and /dev/shm, and how the next start finds what a killed one left there, steps too.

A running server holds a lock on SHM/<name>-lock. A lock that can be taken belongs to no running server.
"""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import stat
import tempfile
from pathlib import Path
from typing import IO

from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.server_processes import command_line

SHM = Path("/dev/shm")
PREFIX = "medimageparse-"
LOCK = "lock"
LOCK_NAME = re.compile(rf"({PREFIX}[a-z0-9_]{{8}})-{LOCK}")  # as mkdtemp names folders, and nothing else
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
    file = open(unseen, "xb", opener=lambda path, flags: os.open(path, flags, 0o600))  # noqa: SIM115, it stays open
    fcntl.flock(file, fcntl.LOCK_EX)
    unseen.rename(shm / f"{name}-{LOCK}")  # seen only when it is locked
    return file


def hide(name: str, shm: Path = SHM) -> None:
    """Takes the names off one server's regions, once all its processes have opened them.

    tritonserver makes them readable by every user of the machine, umask or not. Without a name nobody else finds them,
    and they go with the last process that has them, however that ends.
    """
    for path in named(name, shm):
        if path.name != f"{name}-{LOCK}":
            path.unlink(missing_ok=True)


def remove(name: str, shm: Path = SHM) -> None:
    """Removes the scratch folder and the shared memory of one server."""
    shutil.rmtree(temporary_folder() / name, ignore_errors=True)
    for path in named(name, shm):
        with contextlib.suppress(OSError):  # another user's file that is called alike
            path.unlink(missing_ok=True)


def named(name: str, shm: Path) -> list[Path]:
    """What begins with the name of one server; the lock comes last, so that a sweep finds what is left without it."""
    found = [shm / entry for entry in os.listdir(shm) if entry.startswith(f"{name}-")]
    return sorted(found, key=lambda path: path.name.endswith(f"-{LOCK}"))


def sweep(shm: Path = SHM) -> list[str]:
    """Removes what servers of this user left that were killed; gives their names."""
    swept = []
    for entry in os.listdir(shm):
        found = LOCK_NAME.fullmatch(entry)
        try:
            if found and take(shm / entry):
                end_steps(found[1])
                remove(found[1], shm)
                swept.append(found[1])
        except OSError:  # in use, another user's, or swept by someone else
            continue
    return swept


def end_steps(name: str) -> None:
    """Ends Python steps of a server that has ended: one that it was just starting waits for its first word for ever."""
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        program, *words = command_line(pid) or [""]
        if program.endswith("/triton_python_backend_stub") and any(word.startswith(f"{name}-") for word in words):
            with contextlib.suppress(OSError):  # it has ended in the meantime, or is another user's
                os.kill(pid, signal.SIGKILL)


def take(lock: Path) -> bool:
    """Whether the lock is a file of this user; OSError if it is in use. Anybody may put files and links here."""
    with open(os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid():
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
