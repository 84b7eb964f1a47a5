"""What this machine can multiply, and what our networks need: the limit that no schedule passes."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from recording import IMAGE_IN_BF16, median
from runtimes import named, now
from techniques import ALL, IMAGE, PARTS, Setup, Tensors, run_parts
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

SIDES = {"cpu": 2048, "cuda": 8192}
TIMES = 5
FP32, BF16 = "fp32_gflops", "bf16_gflops"
PRODUCTS = {FP32: torch.float32, BF16: torch.bfloat16}


def product_gflops(name: str = FP32, device: str = "cpu") -> float:
    """GFLOP/s of a large matrix product in PyTorch; a CPU without bf16 needs minutes for one in it."""
    side = SIDES[device]
    a, b = (torch.randn(side, side, device=device, dtype=PRODUCTS[name]) for _ in range(2))
    return 2 * side**3 / 1e9 / seconds_of(lambda: a @ b, device)


def seconds_of(work: Callable[[], object], device: str = "cpu") -> float:
    """The median of a few times after a first."""
    seconds = []
    for _ in range(TIMES + 1):
        started = now(device)
        work()
        seconds.append(now(device) - started)
    return median(seconds[1:])


def needed_gflop(setup: Setup, request: Tensors) -> dict[str, float]:
    """GFLOP of the products and convolutions of our networks for a request, by part; nothing is computed."""
    found, modules = {}, setup.modules  # built before nothing is computed any more

    def counted(part: str, *inputs: torch.Tensor):
        with FlopCounterMode(display=False) as counter:
            outputs = modules[part](*inputs)
        found[part] = counter.get_total_flops() / 1e9
        return outputs

    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        run_parts(setup, {part: named(setup.networks[part], partial(counted, part)) for part in PARTS}, request)
    return found


def floor_seconds(part: str, gflop: Mapping[str, float], rates: Mapping[str, float], precision: str) -> float:
    """Seconds of a part's arithmetic at the machine's rate of the precision that it is computed in; 0 for no part.

    Without a rate of bf16 all is computed in fp32.
    """
    parts = PARTS if part == ALL else [part]
    in_bf16 = {"fp32": (), IMAGE_IN_BF16: (IMAGE,)}.get(precision, PARTS) if BF16 in rates else ()
    return sum(gflop[p] / rates[BF16 if p in in_bf16 else FP32] for p in parts if p in gflop)
