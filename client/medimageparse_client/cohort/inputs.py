"""Whether a volume is the one that was asked for before."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from medimageparse_contract.hashing import sha256


def stamp_of(source: Path | str) -> str:
    """Sizes and times, which change when somebody writes there; "" for what is no file. Reads no content."""
    if isinstance(source, str):
        return source  # an archive never changes a series under its address
    try:
        if source.is_dir():
            states = [path.stat() for path in files_of(source)]
            newest = max((state.st_mtime_ns for state in states), default=0)
            return f"{len(states)} files, {sum(state.st_size for state in states)} bytes, {newest} ns"
        state = source.stat()
        return f"{state.st_size} bytes, {state.st_mtime_ns} ns"
    except OSError:
        return ""


def hash_of(source: Path | str) -> str:
    """SHA-256 of a file; of a folder that of all names and files in it, of an address that of its text."""
    if isinstance(source, str):
        return hashlib.sha256(source.encode()).hexdigest()
    if not source.is_dir():
        return sha256(source)
    digest = hashlib.sha256()
    for path in files_of(source):
        digest.update(os.fsencode(path.relative_to(source)) + b"\0" + sha256(path).encode())
    return digest.hexdigest()


def files_of(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.is_file())
