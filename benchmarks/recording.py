"""What all scripts share: options, graphs and rows; a number never leaves without its conditions."""

import argparse
import csv
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from medimageparse.variants import VARIANTS, Variant
from medimageparse_serving.step_environment import CACHE_BYTES

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results")
WORK = Path(__file__).with_name("work")  # ignored by git
SERVED_PACKAGES = ("onnxruntime", "openvino", "numpy", "nvidia-pytriton")
SUFFIXES = {"medimageparse_3d": "", "medimageparse": "_2D"}  # of a variant's name: the same sizes in 3D and 2D
IMAGE_IN_BF16 = "image encoder bf16, rest fp32"
SEED = 1  # of the random weights; with 0 a label of the published size hangs on the last bit
Row = Mapping[str, object]

os.environ.setdefault(CACHE_BYTES, "0")  # a request that is sent again is to cost as much as the first


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


def find_graphs(model: str, options: argparse.Namespace, precision: str = "fp32") -> Path:
    """The folder of --graphs with this model; without any, of random weights, exported once and kept in --work."""
    for folder in options.graphs:
        if (folder / model / "1" / "networks.json").exists():
            return folder
    if options.graphs:
        raise SystemExit(f"no folder of --graphs has {model}; name one, or leave the model out")
    name = options.variant + SUFFIXES[model]
    graphs = options.work / f"graphs-{name}-{precision}-seed-{options.seed}"
    if not (graphs / model / "1" / "networks.json").exists():
        command = [sys.executable, "-m", "medimageparse", "export", "--random-weights", str(options.seed)]
        command += ["--variant", name, "--precision", precision, "--repository", str(graphs)]
        subprocess.run(command, check=True)
    return graphs


def graph_of(graphs: Path, network: str) -> Path:
    return graphs / network / "1" / "model.onnx"


def description_of(graphs: Path, model: str) -> dict[str, str]:
    """What export wrote about the graphs of a public model: variant, precision, checkpoint_sha256."""
    return json.loads((graphs / model / "1" / "networks.json").read_text())


def variant_of(graphs: Path, model: str) -> Variant:
    return VARIANTS[description_of(graphs, model)["variant"]]


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
    found = {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "commit": commit(), "cpu": cpu_model()}
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    found |= {"cores": len(os.sched_getaffinity(0)), "memory_gb": memory_gb, "load_before": os.getloadavg()[0]}
    return found | {"python": platform.python_version(), **{package: installed(package) for package in packages}}


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
