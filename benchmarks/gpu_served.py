"""The published sizes with random weights through a real tritonserver, networks by ONNX Runtime's CUDA provider.

This is the server of the nvidia-pytriton wheel with the networks as python steps: features travel between processes
through the CPU's memory. It shows the served pipeline on a GPU machine, not the speed of the native backends. One thing
is varied at a time, as in scaling.py.
"""

import subprocess
import sys
from collections.abc import Sequence

import onnxruntime
from recording import RESULTS, Row, find_graphs, graph_of, record, results_of
from scaling import parser_for, rows, summary
from served import Setting

WINDOWS_IN_FLIGHT = 2  # as with the runtimes of a GPU


def gpu_state() -> Row:
    """Name, driver and memory in use of the first GPU; empty without one."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.used", "--format=csv,noheader,nounits", "--id=0"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {"gpu": "", "driver": "", "gpu_memory_gb": ""}
    name, driver, mebibytes = (word.strip() for word in answer.split(","))
    return {"gpu": name, "driver": driver, "gpu_memory_gb": float(mebibytes) * 2**20 / 1e9}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_for(__doc__, RESULTS / "gpu_served.csv")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the script out")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    parser.set_defaults(slices=[63], prompts=[15, 1], window_size=[4, 8], threads=[0], instances=[1], requests=5)
    options = parser.parse_args(arguments)
    results = results_of(options, "gpu_served")
    providers = [*(["CUDAExecutionProvider"] if options.device == "cuda" else []), "CPUExecutionProvider"]
    graphs = find_graphs("medimageparse_3d", options, options.precision)
    # ONNX Runtime takes the next provider when a library is missing
    session = onnxruntime.InferenceSession(graph_of(graphs, "text_encoder_3d"), providers=providers)
    if session.get_providers()[0] != providers[0]:
        print("ONNX Runtime cannot use CUDA: onnxruntime-gpu or a library it needs is missing", file=sys.stderr)
        return 1
    setting = Setting(graphs, windows_in_flight=WINDOWS_IN_FLIGHT, providers=",".join(providers))
    record(results, rows(setting, options, gpu_state), summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
