"""The published-size networks on one GPU, without a server: time, memory and parity of every way to run them.

Weights are random, with every branch at work. First come the two ceilings of the machine, then one technique after the
other; a row is written as soon as it is measured, so that a run that is cut off leaves its rows.
"""

import argparse
import gc
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from medimageparse.networks import build_random
from medimageparse.variants import PUBLISHED, VARIANTS, Variant
from recording import RESULTS, append_row, conditions, median, p95
from served import SEED, WORK
from techniques import TECHNIQUES, Run, Setup, pytorch
from torch import Tensor

TEXT, IMAGE, MASKS, ALL = "text_encoder_3d", "image_encoder_3d", "mask_decoder_3d", "all three"
Request = tuple[Tensor, Tensor, Tensor]  # window, input_ids, attention_mask
Results = Sequence[tuple[Tensor, ...]]

N_TOKENS = 15  # of the longest of the 15 sentences for the real CT
N_INPUT_SETS = 3  # taken in turn
N_WARM_UPS = 5
PACKAGES = ("torch", "onnxruntime-gpu", "onnxruntime", "onnx")


def run_all(runs: Mapping[str, Run], request: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A window and its prompts through the three networks."""
    window, input_ids, attention_mask = request
    return runs[MASKS]([*runs[IMAGE]([window]), *runs[TEXT]([input_ids, attention_mask])])


def make_requests(variant: Variant, n_slices: int, n_prompts: int, device: str) -> list[Request]:
    """Several made-up windows and prompts of one size."""
    generator = torch.Generator().manual_seed(SEED)

    def draw() -> Request:
        blobs = torch.rand(1, n_slices + 2, 6, 6, generator=generator)
        size = (variant.image_size, variant.image_size)
        window = F.interpolate(255 * blobs, size=size, mode="bilinear")[0].round()
        input_ids = torch.randint(1, variant.vocabulary_size - 2, (n_prompts, N_TOKENS), generator=generator)
        lengths = torch.randint(2, N_TOKENS + 1, (n_prompts, 1), generator=generator)
        lengths[-1] = N_TOKENS
        attention_mask = (torch.arange(N_TOKENS) < lengths).long()
        return window.to(device), input_ids.to(device), attention_mask.to(device)

    return [draw() for _ in range(N_INPUT_SETS)]


def inputs_of(network: str, request: Request, runs: Mapping[str, Run]) -> list[Tensor]:
    """What a network gets for a request when `runs` are the networks before it."""
    window, *prompts = request
    if network == MASKS:
        # ONNX Runtime reads the memory as it lies
        return [features.contiguous() for features in (*runs[IMAGE]([window]), *runs[TEXT](prompts))]
    return {TEXT: prompts, IMAGE: [window], ALL: list(request)}[network]


def milliseconds(run: Run, input_sets: Sequence[Sequence[Tensor]], repeats: int, device: str) -> list[float]:
    """Time of each of many runs, the inputs in turn; by CUDA events where there is CUDA."""
    in_turn = [input_sets[i % len(input_sets)] for i in range(repeats)]
    for i in range(N_WARM_UPS):
        run(input_sets[i % len(input_sets)])
    if device == "cpu":
        return [timed_on_cpu(run, inputs) for inputs in in_turn]
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in in_turn]
    torch.cuda.synchronize()
    for inputs, (start, end) in zip(in_turn, events, strict=True):
        start.record()
        run(inputs)
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in events]


def timed_on_cpu(run: Run, inputs: Sequence[Tensor]) -> float:
    started = time.perf_counter()
    run(inputs)
    return 1000 * (time.perf_counter() - started)


def parity(network: str, expected: Results, found: Results) -> dict[str, object]:
    """The worst of several results against fp32; relative L2 is of the encoders' first output and of mask_logits."""
    pairs = list(zip(expected, found, strict=True))
    if network in (TEXT, IMAGE):
        return {"relative_l2": max(relative_l2(e[0], f[0]) for e, f in pairs), "label_agreement": "", "mask_iou": ""}
    return {
        "relative_l2": max(relative_l2(e[2], f[2]) for e, f in pairs),
        "label_agreement": min(float((e[0] == f[0]).float().mean()) for e, f in pairs),
        "mask_iou": min(mask_iou(e[0], f[0]) for e, f in pairs),
    }


def relative_l2(expected: Tensor, found: Tensor) -> float:
    expected, found = expected.double(), found.double()
    return float((found - expected).norm() / expected.norm())


def mask_iou(expected: Tensor, found: Tensor) -> float:
    """Mean over the labels that either label map has; nan where neither has one."""
    labels = [label for label in torch.cat([expected, found]).unique().tolist() if label]
    overlaps = [((expected == k) & (found == k)).sum() / ((expected == k) | (found == k)).sum() for k in labels]
    return float(np.mean([float(overlap) for overlap in overlaps])) if overlaps else float("nan")


def ceilings(device: str) -> dict[str, object]:
    """A large bf16 matrix product on random data, and a copy on the device, bytes read and written counted."""
    side, n_floats = (8192, 2**30) if device == "cuda" else (512, 2**22)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    source, target = torch.randn(n_floats, device=device), torch.empty(n_floats, device=device)
    product_ms = median(milliseconds(lambda pair: (pair[0] @ pair[1],), [(a, b)], 20, device))
    copy_ms = median(milliseconds(lambda pair: (pair[1].copy_(pair[0]),), [(source, target)], 20, device))
    return {"bf16_tflops": 2 * side**3 / product_ms / 1e9, "copy_tb_s": 8 * n_floats / copy_ms / 1e9}


def floor_gflop(network: str, n_slices: int, n_prompts: int) -> float:
    """The arithmetic that the published sizes need, spec sections 7 and 10, and NOTES.md for the last convolution.

    Of that 77.3 GFLOP are taken out of the image encoder; the decoder has 25.4 and 0.16 per prompt more. What it had
    before is an estimate: torch's counter found 19.9 GFLOP for 1 prompt and 61.5 for 15.
    """
    needed = {
        TEXT: 5.85 * n_prompts * N_TOKENS / 77,
        IMAGE: (569.9 - 77.3) * n_slices,
        MASKS: (17 + 25.4 + (2.7 + 0.16) * n_prompts) * n_slices,
    }
    return needed.get(network, sum(needed.values()))


def times_floor(network: str, n_slices: int, n_prompts: int, median_ms: float, tflops: float) -> dict[str, object]:
    """The time of that arithmetic at the measured bf16 rate, and the measured time as its multiple."""
    floor_ms = floor_gflop(network, n_slices, n_prompts) / tflops
    return {"floor_ms": floor_ms, "times_floor": median_ms / floor_ms}


class GpuMemory:
    """What a technique takes on the GPU: its weights, the most it allocates while running, and what is not torch's."""

    def __init__(self, device: str) -> None:
        self.is_cuda = device == "cuda"
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()
        self.allocated, self.outside = self._allocated(), self._outside()

    def prepared(self) -> None:
        """The technique's weights are there."""
        self.weights = self._allocated() - self.allocated

    def start(self) -> None:
        """What is allocated now belongs to others: inputs and expected results."""
        self.others = self._allocated()
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> object:
        """In GB since `start`; of ONNX Runtime the largest of all settings so far. Empty on a CPU."""
        if not self.is_cuda:
            return ""
        running = torch.cuda.max_memory_allocated() - self.others
        return (self.weights + running + self._outside() - self.outside) / 1e9

    def _allocated(self) -> int:
        return torch.cuda.memory_allocated() if self.is_cuda else 0

    def _outside(self) -> int:
        if not self.is_cuda:
            return 0
        free, total = torch.cuda.mem_get_info()
        return total - free - torch.cuda.memory_reserved()


def sweep(slices: Sequence[int], prompts: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Network, slices, prompts; the encoders only where a size of their own changes."""
    for n_slices in slices:
        for n_prompts in prompts:
            if n_slices == slices[0]:
                yield TEXT, n_slices, n_prompts
            if n_prompts == prompts[0]:
                yield IMAGE, n_slices, n_prompts
            yield MASKS, n_slices, n_prompts
            yield ALL, n_slices, n_prompts


def measure_technique(
    technique: str, setup: Setup, reference: Mapping[str, Run], options: argparse.Namespace
) -> Iterator[dict[str, object]]:
    """The rows of one technique: a network at one number of slices and prompts, its time, memory and parity."""
    memory = GpuMemory(setup.device)
    started = time.perf_counter()
    runs = with_all(TECHNIQUES[technique](setup))
    prepare_s = time.perf_counter() - started
    memory.prepared()
    for network, n_slices, n_prompts in sweep(options.slices, options.prompts):
        requests = make_requests(setup.variant, n_slices, n_prompts, setup.device)
        input_sets = [inputs_of(network, request, reference) for request in requests]
        expected = [reference[network](inputs) for inputs in input_sets]
        memory.start()
        started = time.perf_counter()
        compared = parity(network, expected, [runs[network](inputs) for inputs in input_sets])
        first_runs_s = time.perf_counter() - started
        times = milliseconds(runs[network], input_sets, options.repeats, setup.device)
        yield {
            "technique": technique,
            "network": network,
            "slices": n_slices,
            "prompts": n_prompts,
            "tokens": N_TOKENS,
            "input_sets": N_INPUT_SETS,
            "repeats": options.repeats,
            "median_ms": median(times),
            "p95_ms": p95(times),
            "ms_per_slice": median(times) / n_slices,
            **compared,
            "gpu_memory_gb": memory.peak_gb(),
            "prepare_s": prepare_s,
            "first_runs_s": first_runs_s,
        }


def with_all(runs: dict[str, Run]) -> dict[str, Run]:
    return {**runs, ALL: partial(run_all, runs)}


def machine(device: str) -> dict[str, object]:
    """Conditions and ceilings."""
    gpu = {
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "",
        "cuda": torch.version.cuda or "",
        "cudnn": torch.backends.cudnn.version() or "",
    }
    return conditions(PACKAGES) | gpu | ceilings(device)


def summary(row: Mapping[str, object]) -> str:
    line = f"{row['technique']:<17}{row['network']:<17}{row['slices']:>2} slices {row['prompts']:>2} prompts"
    line += f" {row['median_ms']:9.3f} ms, p95 {row['p95_ms']:9.3f}, relative L2 {row['relative_l2']:.1e}"
    if row["mask_iou"] != "":
        line += f", labels {row['label_agreement']:.4f}, IoU {row['mask_iou']:.4f}"
    if row["times_floor"] != "":
        line += f", {row['times_floor']:.1f} x floor, {row['gpu_memory_gb']:.1f} GB"
    return line


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="for the exported graphs")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the script out")
    parser.add_argument("--variant", choices=VARIANTS, default=PUBLISHED.name)
    parser.add_argument("--techniques", nargs="+", choices=TECHNIQUES, default=list(TECHNIQUES), metavar="NAME")
    parser.add_argument("--slices", type=int, nargs="+", default=[1, 4, 8], metavar="N")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 15], metavar="N")
    parser.add_argument("--repeats", type=int, default=100, metavar="N")
    parser.add_argument("--budget-s", type=float, default=560, metavar="S", help="nothing more is measured after this")
    parser.add_argument("--results", type=Path, default=RESULTS / "gpu_networks.csv", metavar="CSV")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    deadline = time.monotonic() + options.budget_s
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device; --device cpu --variant TINY tries the script out", file=sys.stderr)
        return 1
    variant, here = VARIANTS[options.variant], machine(options.device)
    print(f"bf16 matrix product {here['bf16_tflops']:.4g} TFLOP/s, copy {here['copy_tb_s']:.3g} TB/s", flush=True)
    modules = {name: m.to(options.device).requires_grad_(False) for name, m in build_random(variant, SEED).items()}
    setup = Setup(options.device, variant, modules, options.work)
    reference = with_all(pytorch(setup))
    has_floor = variant is PUBLISHED and options.device == "cuda"
    for technique in options.techniques:
        for row in measure_technique(technique, setup, reference, options):
            sizes = (row["network"], row["slices"], row["prompts"])
            floor = {"floor_ms": "", "times_floor": ""}
            if has_floor:
                floor = times_floor(*sizes, row["median_ms"], here["bf16_tflops"])
            row = here | {"variant": variant.name, "weights": f"random, seed {SEED}"} | row | floor
            append_row(options.results, row)
            print(summary(row), flush=True)
            if time.monotonic() > deadline:
                print("the rest is left out: --budget-s is spent", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
