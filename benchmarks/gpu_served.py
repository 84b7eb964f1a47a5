"""The published sizes with random weights through a real tritonserver, networks by ONNX Runtime's CUDA provider.

This is the server of the nvidia-pytriton wheel with the networks as python steps: features travel between processes
through the CPU's memory. It shows the served pipeline on a GPU machine, not the speed of the native backends.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import onnxruntime
from inputs import REAL_CT, load_case
from recording import RESULTS, append_row, conditions
from served import WORK, Setting, columns, measure, random_graphs, serving, summary

PACKAGES = ("onnxruntime-gpu", "onnxruntime", "numpy", "nvidia-pytriton")
WINDOWS_IN_FLIGHT = 2  # as with the runtimes of a GPU
CUDA = "CUDAExecutionProvider"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="for graphs and the served copy")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the script out")
    parser.add_argument("--variant", default="PUBLISHED")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("--graphs", type=Path, metavar="DIR", help="serve these graphs, not random weights")
    parser.add_argument("--slices", type=int, default=63)
    parser.add_argument("--prompts", type=int, nargs="+", default=[15, 1], metavar="N", help="a row for each")
    parser.add_argument("--window-sizes", type=int, nargs="+", default=[4, 8], metavar="SLICES", help="a row for each")
    parser.add_argument("--requests", type=int, default=5, metavar="N", help="timed ones, after a first")
    parser.add_argument("--volume", type=Path, default=REAL_CT, metavar="NPZ", help="where absent, a phantom is drawn")
    parser.add_argument("--results", type=Path, default=RESULTS / "gpu_served.csv", metavar="CSV")
    return parser.parse_args(arguments)


def provider_that_runs(graph: Path, providers: Sequence[str]) -> str:
    """Which provider a session really gets; ONNX Runtime takes the next one when a library is missing."""
    session = onnxruntime.InferenceSession(graph, providers=list(providers))
    return session.get_providers()[0]


def gpu_state() -> dict[str, object]:
    """Name, driver and memory in use of the first GPU; empty without one."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.used", "--format=csv,noheader,nounits", "--id=0"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {"gpu": "", "driver": "", "gpu_memory_gb": ""}
    name, driver, mebibytes = (word.strip() for word in answer.split(","))
    return {"gpu": name, "driver": driver, "gpu_memory_gb": float(mebibytes) * 2**20 / 1e9}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    providers = [CUDA, "CPUExecutionProvider"] if options.device == "cuda" else ["CPUExecutionProvider"]
    graphs = options.graphs or random_graphs(options.work, options.variant, options.precision)
    if provider_that_runs(graphs / "text_encoder_3d" / "1" / "model.onnx", providers) != providers[0]:
        print(
            "ONNX Runtime cannot use CUDA: onnxruntime-gpu or a library it needs is missing",
            file=sys.stderr,
        )
        return 1
    if not options.volume.exists():
        print("the real CT is absent: a phantom is segmented instead")
    case = load_case(options.slices, options.volume)
    for window_size in options.window_sizes:
        for prompts in options.prompts:
            sizes = (options.slices, prompts, window_size)
            setting = Setting(graphs, ",".join(providers), *sizes, windows_in_flight=WINDOWS_IN_FLIGHT)
            row = conditions(PACKAGES)
            with serving(options.work, setting) as server:
                row |= columns(setting, case, measure(server, case, setting, options.requests)) | gpu_state()
            append_row(options.results, row)
            print(summary(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
