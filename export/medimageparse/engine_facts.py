"""What an engine serves and takes, in sentences for whoever builds it, before it is built. Without torch."""

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir

from medimageparse.served_tensors import Dimension, Network, TensorSpec
from medimageparse.variants import MAX_PROMPTS

# what to change for more, by dimension; no network takes more tokens or digits
PROMPTS = (
    "prompts: `largest` of PROMPTS in export/medimageparse/served_tensors.py, and `max_prompts` of tokenize_prompts; "
    f"above {MAX_PROMPTS} also MAX_PROMPTS in export/medimageparse/variants.py, and `make export` again"
)
SLICES = (
    "slices: `largest` of `slices`, and 2 more of `slices_and_halo`, in export/medimageparse/served_tensors.py; no "
    "more are needed than a window has, `window_size` in medimageparse_3d/config.pbtxt"
)
GROUPS = (
    "groups: MAX_GROUPS in export/medimageparse/variants.py, and `max_groups` of tokenize_prompts; each takes a pass "
    "of the decoder"
)
MORE = {"prompts": PROMPTS, "prompts_per_group": PROMPTS, "slices": SLICES, "slices_and_halo": SLICES, "groups": GROUPS}

KERNELS = 20 * 10**6  # of compiled code at most, found by building for SM80 (check_engine.py)


def dimensions_of(network: Network) -> list[Dimension]:
    """The dynamic dimensions of a network's inputs, each once, in their order."""
    found = [d for spec in network.inputs for d in spec.shape if isinstance(d, Dimension)]
    return list(dict.fromkeys(found))


def shape(spec: TensorSpec, size: str) -> tuple[int, ...]:
    """A tensor's shape with every dynamic dimension at its `size`: "smallest", "usual" or "largest"."""
    return tuple(getattr(d, size) if isinstance(d, Dimension) else d for d in spec.shape)


def tensor_bytes(specs: Sequence[TensorSpec], size: str) -> int:
    """Bytes of some tensors at the smallest, usual or largest of their shapes."""
    return sum(prod(shape(spec, size)) * np.dtype(spec.dtype).itemsize for spec in specs)


def constant_bytes(graph: onnx_ir.Model) -> int:
    """Bytes of the weights, noise and tables of a graph, which an engine holds as they are."""
    return sum(value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value is not None)


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB" if count >= 10e6 else f"{count / 1e6:.1f} MB"


def described(network: Network, graph: onnx_ir.Model, workspace_bytes: int) -> str:
    """Optimization profile, workspace, expected size and what to change for more, a line each.

    workspace_bytes: what the builder may use for the temporaries of a layer, as its configuration says.
    """
    dynamic = dimensions_of(network)
    sizes = "; ".join(f"{d.name} {d.smallest}, {d.usual}, {d.largest}" for d in dynamic) or "one shape only"
    both = tensor_bytes((*network.inputs, *network.outputs), "largest")
    more = list(dict.fromkeys(MORE[d.name] for d in dynamic if d.name in MORE))
    constants, kernels = megabytes(constant_bytes(graph)), megabytes(KERNELS)
    lines = [
        f"{network.name}:",
        f"optimization profile (smallest, usual, largest): {sizes}",
        f"inputs and outputs at the largest: {megabytes(both)}",
        f"workspace: TensorRT's default, up to {megabytes(workspace_bytes)}; what it reserves is said at the end",
        f"expected size: {constants} of weights and constants, and at most some {kernels} of kernels",
    ]
    lines += [f"for more {sentence}" for sentence in more]
    return "\n  ".join(lines)
