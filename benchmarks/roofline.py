"""What a GPU has to do, on paper: bytes and arithmetic of the exported graphs by network and kind of node.

Every node counts as a kernel of its own that reads its inputs and writes its outputs once, as if nothing were fused; a
compiler fuses, so the bytes are an upper bound, and so is the time: the sum over the nodes of the longer of arithmetic
and memory. Views cost nothing; what is cut out or gathered is read and written once. Only products and convolutions
count as arithmetic. The rates of this machine are measured in the run, those of GPUs are from their data sheets.
With --engines NVIDIA's compiler builds each graph for compute capability 8.0 on the CPU, and says the engine's size.
"""

import os
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from math import prod

import onnx_ir
import torch
from machine_rate import product_gflops, seconds_of
from medimageparse.build_engine import build_plan
from medimageparse.check_engine import for_sm80
from medimageparse.export_onnx import graph_of, to_float16
from medimageparse.networks import build_random
from medimageparse.served_tensors import Network, networks
from medimageparse.variants import VARIANTS
from medimageparse.watched_graph import content
from onnx_ir.passes.common import ShapeInferencePass
from processes import OtherLoad
from recording import Row, conditions, parser_of, record, results_of
from sympy import Integer, sympify

PRECISIONS = "fp16", "fp32"
# TFLOP/s of matrix products by precision (dense; fp32 as TF32, TensorRT's default), and TB/s of memory. Data sheets:
# NVIDIA A100 80 GB SXM (2021), NVIDIA H100 SXM (2023).
ASSUMPTIONS = {
    "a100": {"fp16": 312.0, "fp32": 156.0, "memory": 2.039},
    "h100": {"fp16": 989.4, "fp32": 494.7, "memory": 3.35},
}
VIEWS = {"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Constant", "Shape"}
PARTS_OF_AN_INPUT = {"Slice", "Gather", "GatherND", "Split"}
ALL = "all"

Rates = Mapping[str, Mapping[str, float]]  # machine -> as in ASSUMPTIONS


@dataclass
class Cost:
    """Nodes, bytes, floating point operations, and seconds by machine."""

    nodes: int = 0
    moved: int = 0
    flop: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def give_sizes(graph: onnx_ir.Model, sizes: Mapping[str, int]) -> None:
    """Numbers in place of the exporter's formulas for shapes, and what it left out inferred, in place."""
    for value in (*graph.graph.inputs, *(output for node in graph.graph for output in node.outputs)):
        dims = [sympify(sympify(str(dim), sizes)) for dim in value.shape]
        value.shape = onnx_ir.Shape(map(int, dims)) if all(isinstance(dim, Integer) for dim in dims) else None
    ShapeInferencePass()(graph)


def elements(value: onnx_ir.Value) -> int:
    return prod(value.shape.numpy())  # ValueError for a dimension without a size


def cost_of(node: onnx_ir.Node) -> tuple[int, int]:
    """Bytes and floating point operations of a node."""
    inputs, outputs = ([value for value in values if value is not None] for values in (node.inputs, node.outputs))
    counted = [*outputs, *(outputs if node.op_type in PARTS_OF_AN_INPUT else inputs)]
    moved = 0 if node.op_type in VIEWS else sum(elements(value) * value.dtype.itemsize for value in counted)
    terms = 0
    if node.op_type == "Conv":
        terms = prod(inputs[1].shape.numpy()[1:])
    elif node.op_type in ("MatMul", "Gemm"):
        transposed = "transA" in node.attributes and node.attributes["transA"].as_int()
        terms = inputs[0].shape.numpy()[0 if transposed else -1]
    return int(moved), 2 * terms * elements(outputs[0])


def costs(graph: onnx_ir.Model, sizes: Mapping[str, int], rates: Rates) -> dict[str, Cost]:
    """By kind of node, the most bytes first, and the sum of all."""
    give_sizes(graph, sizes)
    found = defaultdict[str, Cost](Cost)
    for node, kind in product(graph.graph, (None, ALL)):
        cost, (moved, flop) = found[kind or node.op_type], cost_of(node)
        cost.nodes, cost.moved, cost.flop = cost.nodes + 1, cost.moved + moved, cost.flop + flop
        precision = "fp16" if node.outputs[0].dtype == onnx_ir.DataType.FLOAT16 else "fp32"
        for machine, of in rates.items():
            arithmetic = of.get(precision, of["fp32"])  # a CPU computes fp16 in fp32
            cost.seconds[machine] += max(flop / arithmetic, moved / of["memory"]) / 1e12
    return dict(sorted(found.items(), key=lambda item: -item[1].moved))


def measured_rates() -> dict[str, float]:
    """Of this machine, as in ASSUMPTIONS: a product in fp32, and a copy, read and written."""
    source, target = torch.rand(2**26), torch.empty(2**26)
    copy_s = seconds_of(lambda: target.copy_(source))
    return {"fp32": product_gflops() / 1000, "memory": 2 * source.nbytes / copy_s / 1e12}


def engine_mb(graph: onnx_ir.Model, network: Network) -> float:
    """For every shape that is served, as `export --check-engine` builds it."""
    import tensorrt_rtx as trt  # of the extra test

    return len(build_plan(trt, content(graph), network, partial(for_sm80, trt))) / 1e6


def sizes_of(options: Namespace) -> dict[str, int]:
    sizes = {"slices": options.slices, "slices_and_halo": options.slices + 2, "digits": 1, "groups": 1}
    return sizes | {"tokens": options.tokens} | dict.fromkeys(("prompts", "prompts_per_group"), options.prompts)


def all_rows(options: Namespace) -> Iterator[Row]:
    others, here = OtherLoad(os.getpid()), conditions(("torch", "onnx", "onnxruntime"))
    rates = {"here": measured_rates(), **ASSUMPTIONS}
    here |= {"others_share": others.share(), "gflop_s_here": 1e3 * rates["here"]["fp32"]}
    here |= {"gb_s_here": 1e3 * rates["here"]["memory"], "runtime": "on paper"}
    for suffix, precision in product(options.models, PRECISIONS):
        variant = VARIANTS[options.variant + suffix]
        modules = build_random(variant, options.seed)
        for name, network in networks(variant).items():
            if options.networks and name not in options.networks:
                continue
            graph = graph_of(to_float16(modules[name]) if precision == "fp16" else modules[name], network)
            said = here | {"variant": variant.name, "precision": precision, "network": name}
            said |= {"slices": options.slices, "prompts": options.prompts, "tokens": options.tokens}
            said |= {"engine_mb": engine_mb(graph, network) if options.engines else ""}  # before sizes become numbers
            for kind, cost in costs(graph, sizes_of(options), rates).items():
                row = said | {"kind": kind, "nodes": cost.nodes, "gb": cost.moved / 1e9, "gflop": cost.flop / 1e9}
                yield row | {f"{machine}_ms": 1e3 * cost.seconds[machine] for machine in rates}


def summary(row: Row) -> str:
    line = f"{row['network']:<17}{row['precision']} {row['kind']:<22}{row['nodes']:>5} nodes {row['gb']:8.3f} GB"
    return f"{line} {row['gflop']:9.1f} GFLOP, ms: {row['a100_ms']:.2f} A100, {row['h100_ms']:.2f} H100"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=("", "_2D"), default=["", "_2D"], metavar="SUFFIX")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="only these, as they are served")
    parser.add_argument("--engines", action="store_true", help="build them too, some minutes at published size")
    parser.add_argument("--slices", type=int, default=4, metavar="N", help="of a window in 3D")
    parser.add_argument("--prompts", type=int, default=15, metavar="N")
    parser.add_argument("--tokens", type=int, default=15, metavar="N")
    options = parser.parse_args(arguments)
    record(results_of(options, "roofline"), all_rows(options), summary)


if __name__ == "__main__":
    main()
