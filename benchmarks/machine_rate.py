"""What this machine's cores can multiply, and what our networks need: the limit that no schedule passes."""

import time
from collections.abc import Mapping

import torch
from recording import IMAGE_IN_BF16, median
from techniques import ALL, IMAGE, PARTS, Setup, Tensors, run_parts
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

SIDE, TIMES = 2048, 5
FP32, BF16 = "fp32_gflops", "bf16_gflops"
PRODUCTS = {FP32: torch.float32, BF16: torch.bfloat16}


def product_gflops() -> dict[str, float]:
    """GFLOP/s of a large matrix product in PyTorch, by precision; the median of a few after a first."""
    return {name: 2 * SIDE**3 / 1e9 / product_seconds(dtype) for name, dtype in PRODUCTS.items()}


def product_seconds(dtype: torch.dtype) -> float:
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(TIMES + 1):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:])


def needed_gflop(setup: Setup, request: Tensors) -> dict[str, float]:
    """GFLOP of the products and convolutions of our networks for a request, by part; nothing is computed."""
    found, modules = {}, setup.modules  # built before nothing is computed any more

    def counted(part: str):
        def run(inputs):
            with FlopCounterMode(display=False) as counter:
                outputs = modules[part](*inputs)
            found[part] = counter.get_total_flops() / 1e9
            return (outputs,) if isinstance(outputs, torch.Tensor) else outputs

        return run

    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        run_parts(setup, {part: counted(part) for part in PARTS}, request)
    return found


def floor_seconds(part: str, gflop: Mapping[str, float], rates: Mapping[str, float], precision: str) -> float:
    """Seconds of a part's arithmetic at the machine's rate of the precision that it is computed in; 0 for no part."""
    parts = PARTS if part == ALL else [part]
    in_bf16 = (IMAGE,) if precision == IMAGE_IN_BF16 else ()
    return sum(gflop[p] / rates[BF16 if p in in_bf16 else FP32] for p in parts if p in gflop)
