"""What is written beside graphs and engines: JSON with hashes, versions and the differences measured."""

import json
from collections.abc import Mapping
from pathlib import Path


def write_json(path: Path, content: Mapping) -> Path:
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
