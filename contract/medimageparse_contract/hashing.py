"""SHA-256 of files: of graphs, engines, checkpoints, and the cases of an evaluation."""

import hashlib
from pathlib import Path


def sha256(path: Path) -> str:
    """In hexadecimal digits; the file is read in pieces. OSError if it cannot be."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
