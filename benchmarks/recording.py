"""Rows of the result files: a number never leaves without the conditions it was measured under."""

import csv
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results")


def append_row(path: Path, row: Mapping[str, object]) -> None:
    """Adds a row to a CSV file, written at once; a file with other columns is refused, not mixed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = path.read_text().partition("\n")[0] if path.exists() else ""
    if header and header.split(",") != list(row):
        raise ValueError(f"{path.name} has other columns; move it away first")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if not header:
            writer.writeheader()
        writer.writerow({name: rounded(value) for name, value in row.items()})


def rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def conditions(packages: Sequence[str]) -> dict[str, object]:
    """Day, commit, processor, load and the versions of Python and some packages."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: installed(package) for package in packages},
    }


def commit() -> str:
    """The commit of this checkout, "-dirty" when files differ from it; COMMIT names it where there is no git."""
    if "COMMIT" in os.environ:
        return os.environ["COMMIT"]
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude=*"]
    described = subprocess.run(command, capture_output=True, text=True, check=False)
    return described.stdout.strip() or "unknown"


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def median(values: Sequence[float]) -> float:
    return float(np.median(values))


def p95(values: Sequence[float]) -> float:
    return float(np.percentile(values, 95))
