"""Rows of the result files: a number never leaves without the conditions it was measured under."""

import argparse
import csv
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results")
WORK = Path(__file__).with_name("work")  # ignored by git
SERVED_PACKAGES = ("onnxruntime", "openvino", "numpy", "nvidia-pytriton")
SEED = 1  # of the random weights; with 0 a label of the published size hangs on the last bit
Row = Mapping[str, object]


def parser_of(description: str, results: Path | None = None, work: bool = True) -> argparse.ArgumentParser:
    """The options that all scripts share; without `results` a script's file lies in the folder of the variant."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=results, metavar="CSV", help="by default in results/")
    if work:
        parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="for graphs and served copies")
        parser.add_argument("--variant", default="PUBLISHED", help="DEMO or TINY try the script out")
        parser.add_argument("--graphs", type=Path, nargs="+", default=[], metavar="DIR", help="exported already")
        parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="of the random weights")
    return parser


def results_of(options: argparse.Namespace, name: str) -> Path:
    """Where the rows go; --work is made too."""
    options.work.mkdir(parents=True, exist_ok=True)
    return options.results or RESULTS / options.variant / f"{name}.csv"


def record(path: Path, rows: Iterable[Row], summary: Callable[[Row], str]) -> None:
    """Writes and prints every row as soon as it is there."""
    for row in rows:
        append_row(path, row)
        print(summary(row), flush=True)


def append_row(path: Path, row: Row) -> None:
    """Adds a row to a CSV file; a file with other columns is refused, not mixed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = path.read_text().partition("\n")[0] if path.exists() else ""
    if header and header.split(",") != list(row):
        raise ValueError(f"{path.name} has other columns; move it away first")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if not header:
            writer.writeheader()
        writer.writerow({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()})


def conditions(packages: Sequence[str] = SERVED_PACKAGES) -> dict[str, object]:
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


@cache  # it may move on while a script runs
def commit() -> str:
    """The commit of this checkout, "-dirty" when files differ from it; COMMIT names it where there is no git."""
    if "COMMIT" in os.environ:
        return os.environ["COMMIT"]
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude=*"]
    described = subprocess.run(command, capture_output=True, text=True, check=False)
    return described.stdout.strip() or "unknown"


def cpu_model() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def median(values: Sequence[float]) -> float:
    return float(np.median(values))


def p95(values: Sequence[float]) -> float:
    return float(np.percentile(values, 95))
