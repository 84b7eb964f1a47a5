"""Where the files lie that tests read: this checkout, and the folder beside it that not everybody has."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
SHARED = ROOT.parent / "shared"
