"""What is written beside graphs and engines: JSON with hashes, versions and the differences measured."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Mapping) -> Path:
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
