"""The published-size networks on one GPU, without a server: time, memory and parity of every way to run them.

Weights are random, with every branch at work. First come the two ceilings of the machine, then one technique after the
other, in turn with the original's schedule; rows are written as soon as they are measured, so that a run that is cut
off leaves them. The script needs torch, onnxruntime and onnxscript, and no server.
"""

import argparse
import gc
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import techniques
import torch
from medimageparse.variants import PUBLISHED, VARIANTS
from recording import RESULTS, Row, conditions, median, p95, parser_of, record

ORIGINAL = "original"
ON_CPU_ONLY = ["openvino-bf16"]
N_INPUT_SETS = 3  # taken in turn
N_WARM_UPS = 2  # rounds
PACKAGES = ("torch", "onnxruntime-gpu", "onnxruntime", "onnx")


def floor_gflop(n_slices: int, n_prompts: int, part: str) -> float:
    """The arithmetic that the published sizes need, spec sections 7 and 10, and NOTES.md for the last convolution.

    Of that 77.3 GFLOP are taken out of the image encoder; the decoder has 25.4 and 0.16 per prompt more. What it had
    before is an estimate: torch's counter found 19.9 GFLOP for 1 prompt and 61.5 for 15.
    """
    needed = {
        techniques.TEXT: 5.85 * n_prompts * techniques.N_TOKENS / 77,
        techniques.IMAGE: (569.9 - 77.3) * n_slices,
        techniques.MASKS: (17 + 25.4 + (2.7 + 0.16) * n_prompts) * n_slices,
    }
    return needed.get(part, sum(needed.values()))


def ceilings(device: str) -> dict[str, object]:
    """A large bf16 matrix product on random data, and a copy on the device, bytes read and written counted."""
    side, n_floats = (8192, 2**30) if device == "cuda" else (512, 2**22)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    source, target = torch.randn(n_floats, device=device), torch.empty(n_floats, device=device)
    product_s, copy_s = (median_seconds(work, device) for work in (lambda: a @ b, lambda: target.copy_(source)))
    return {"bf16_tflops": 2 * side**3 / product_s / 1e12, "copy_tb_s": 8 * n_floats / copy_s / 1e12}


def median_seconds(work: Callable[[], object], device: str) -> float:
    marks = []
    for _ in range(25):
        marks.append(techniques.mark(device))
        work()
    if device == "cuda":
        torch.cuda.synchronize()
    return median(techniques.seconds_between(marks[5:]))  # the first warm up


def gpu_bytes(device: str) -> int:
    """In use on the GPU, by torch's reserve and by all others; 0 on a CPU."""
    gc.collect()
    free, total = torch.cuda.mem_get_info() if device == "cuda" else (0, 0)
    return total - free


def measure_technique(name: str, setup: techniques.Setup, here: Row, options: argparse.Namespace) -> Iterator[Row]:
    """The rows of one technique: a part at one number of slices and prompts, its time, memory and parity.

    gpu_memory_gb: with the technique's weights, and what it has reserved so far
    """
    if setup.device == "cuda":
        torch.cuda.empty_cache()
    before, started = gpu_bytes(setup.device), time.perf_counter()
    way = techniques.TECHNIQUES[name][-1](setup)
    prepare_s = time.perf_counter() - started
    for n_slices, n_prompts in product(options.slices, options.prompts):
        started = time.perf_counter()
        for _ in range(N_WARM_UPS):
            techniques.run_parts(setup, way, techniques.make_request(setup, n_slices, n_prompts))
        taken = {"gpu_memory_gb": (gpu_bytes(setup.device) - before) / 1e9, "prepare_s": prepare_s}
        taken |= {"first_runs_s": time.perf_counter() - started, "input_sets": N_INPUT_SETS}
        ways = {ORIGINAL: techniques.original(setup), name: way}
        measured = list(techniques.measure(setup, ways, n_slices, [n_prompts], options.repeats, N_INPUT_SETS))
        times = {(way, part): seconds for way, _, part, seconds, _ in measured}
        for part, parity in ((part, parity) for way, _, part, _, parity in measured if way == name):
            spent, sizes = times[name, part], (n_slices, n_prompts, part)
            row = here | techniques.columns(setup, name, sizes, spent, times[ORIGINAL, part]) | parity | taken
            floor_s = floor_gflop(*sizes) / here["bf16_tflops"] / 1000
            row |= {"p95_s": p95(spent), "floor_s": floor_s, "times_floor": median(spent) / floor_s}
            yield row if setup.variant is PUBLISHED else row | {"floor_s": "", "times_floor": ""}


def summary(row: Row) -> str:
    line = f"{row['way']:<28}{row['part']:<14}{row['slices']:>2} slices {row['prompts']:>2} prompts"
    line += f" {1000 * row['median_s']:9.3f} ms, {row['times_original']:.3f} of the original"
    line += f", relative L2 {row['relative_l2']:.1e}"
    if row["mask_iou"] != "":
        line += f", labels {row['label_agreement']:.4f}, IoU {row['mask_iou']:.4f}"
    return line + (f", {row['times_floor']:.1f} x floor, {row['gpu_memory_gb']:.1f} GB" if row["floor_s"] else "")


def main(arguments: Sequence[str] | None = None) -> int:
    on_gpu = [name for name in techniques.TECHNIQUES if name not in ON_CPU_ONLY]
    if importlib.util.find_spec("tensorrt") is None:
        on_gpu.remove("tensorrt-fp16")
    parser = parser_of(__doc__, RESULTS / "gpu_networks.csv")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the script out")
    parser.add_argument("--techniques", nargs="+", choices=on_gpu, default=on_gpu, metavar="NAME")
    parser.add_argument("--slices", type=int, nargs="+", default=[1, 4, 8], metavar="N")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 15], metavar="N")
    parser.add_argument("--repeats", type=int, default=100, metavar="N")
    parser.add_argument("--budget-s", type=float, default=560, metavar="S", help="nothing more is measured after this")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + options.budget_s
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device; --device cpu --variant TINY tries the script out", file=sys.stderr)
        return 1
    gpu = torch.cuda.get_device_name() if options.device == "cuda" else ""
    versions = {"gpu": gpu, "cuda": torch.version.cuda or "", "cudnn": torch.backends.cudnn.version() or ""}
    here = conditions(PACKAGES) | versions | ceilings(options.device)
    print(f"bf16 matrix product {here['bf16_tflops']:.4g} TFLOP/s, copy {here['copy_tb_s']:.3g} TB/s", flush=True)
    setup = techniques.Setup(options.device, VARIANTS[options.variant], options)
    for name in options.techniques:
        for row in measure_technique(name, setup, here, options):
            record(options.results, [row], summary)
            if time.monotonic() > deadline:
                print("the rest is left out: --budget-s is spent", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
