"""Checkpoint -> model.onnx of the three networks, in the folders they are served from, each compared with PyTorch."""

import copy
import logging
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import torch
from medimageparse_contract.hashing import sha256
from medimageparse_contract.options import MAX_DRAWS
from medimageparse_contract.version import VERSION
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from medimageparse.comparison import (
    COMPARED_SIZES,
    Report,
    check,
    differences,
    example_inputs,
    largest,
    margin,
    summary,
)
from medimageparse.decisions import decisions_of, imposing, telling
from medimageparse.focalnet import FocalBlock
from medimageparse.layers import Attention, Float32LayerNorm
from medimageparse.manifest import write_json
from medimageparse.networks_3d import NOISE_SEED, PromptedMasks
from medimageparse.served_tensors import Dimension, Network, TensorSpec, networks
from medimageparse.variants import MAX_GROUPS, MAX_PROMPTS, Variant
from medimageparse.watched_graph import content, decision_names, decisions_in, watched, widened

# 20 is the first with Gelu, 21 the first whose GroupNormalization has a weight per channel. On a CPU ONNX Runtime has
# no kernel for it and takes twice the time, so what a CPU serves stays. TensorRT 10 and 11 parse both.
OPSETS = {"fp32": 20, "fp16": 21}
# over 1, or the exporter fixes them
TRACED_SIZES = {"slices": 2, "slices_and_halo": 4, "digits": 2}
TRACED_SIZES |= {"prompts": 6, "tokens": 5, "groups": 2, "prompts_per_group": 3}

logger = logging.getLogger(__name__)


def to_float16(module: nn.Module) -> nn.Module:
    """All weights of a network in float16, in place; the text encoder's norms and buffers (noise, matrices) stay.

    What its graph holds in float16 besides, positions and the scale of attention, is rounded and keeps its type: so the
    module in float32 again computes what the graph computes, but for rounding on the way.

    With the casts written in the networks this makes a strongly typed graph: sigmoids and Boltzmann probabilities stay
    in float32, norms and attention's softmax compute in it inside, and the graph's inputs and outputs are in it.
    """
    for part in module.modules():
        if isinstance(part, FocalBlock):
            part.fold_scales()
    for part in module.modules():
        if not isinstance(part, Float32LayerNorm):
            for parameter in part.parameters(recurse=False):
                parameter.data = parameter.data.half()
        if isinstance(part, Attention):
            part.scale = float(np.float16(part.scale))
    for name, buffer in module.named_buffers():
        if "positions" in name:
            buffer.data = buffer.half().float()
    return module


def graph_of(module: nn.Module, network: Network, noise: Sequence[TensorSpec] = ()) -> onnx_ir.Model:
    """The ONNX graph of a network, its tensors and dynamic dimensions named as in the table, free of paths and traces.

    noise: for parity checks of the mask decoder, one further input per decoder layer instead of the built-in noise.
    What the network decides, and by what, keeps the names evidence_0, decision_0, evidence_1, ... inside the graph.
    """
    arguments: list = [_zeros(spec) for spec in network.inputs]
    dynamic: list = [_dynamic_dimensions(spec) for spec in network.inputs]
    if noise:
        arguments.append([_zeros(spec) for spec in noise])
        dynamic.append([_dynamic_dimensions(spec) for spec in noise])
    outputs = [spec.name for spec in network.outputs]
    in_float16 = any(parameter.dtype == torch.float16 for parameter in module.parameters())
    with telling(module), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch and onnxscript report on their own insides
        n_decisions = (number_of_outputs(module, arguments) - len(outputs)) // 2 if decisions_of(module) else 0
        program = torch.onnx.export(
            module,
            tuple(arguments),
            dynamo=True,
            opset_version=OPSETS["fp16" if in_float16 else "fp32"],
            input_names=[spec.name for spec in (*network.inputs, *noise)],
            output_names=[*outputs, *decision_names(n_decisions)],
            dynamic_shapes=tuple(dynamic),
            verbose=False,
        )
    _tidy(program.model, (*network.inputs, *noise), network.outputs)
    return program.model


def number_of_outputs(module: nn.Module, arguments: Sequence[Any]) -> int:
    """How many tensors a module gives, without computing one: convolutions in float16 take minutes on a CPU."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        return len(module(*arguments))


def release(package: str) -> str:
    """The installed version without the build behind it: 2.13.0 of 2.13.0+cpu."""
    return version(package).partition("+")[0]


def _zeros(spec: TensorSpec) -> Tensor:
    shape = [TRACED_SIZES[d.name] if isinstance(d, Dimension) else d for d in spec.shape]
    return torch.from_numpy(np.zeros(shape, spec.dtype))


def _dynamic_dimensions(spec: TensorSpec) -> dict[int, str]:
    return {axis: d.name for axis, d in enumerate(spec.shape) if isinstance(d, Dimension)}


def _tidy(model: onnx_ir.Model, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Names the dynamic dimensions and removes the exporter's notes on source files and on the build of PyTorch.

    Equal weights give equal bytes, whether exported with PyTorch for CPUs or for CUDA.
    """
    graph = model.graph
    while len(graph.outputs) > len(outputs):  # the decisions, which keep their names
        graph.outputs.pop()
    model.producer_version = release("torch")
    for value, spec in zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True):
        value.shape = onnx_ir.Shape([d.name if isinstance(d, Dimension) else d for d in spec.shape])
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    for noted in (model, graph, *graph, *values):
        noted.metadata_props.clear()
        noted.doc_string = None


def run_module(module: nn.Module, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A network in PyTorch, arrays in and out."""
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(array) for array in inputs))
    return [tensor.numpy() for tensor in ((outputs,) if isinstance(outputs, Tensor) else outputs)]


def compare(
    module: nn.Module, network: Network, graph: Path, examples: Sequence[list[np.ndarray]], precision: str
) -> dict[str, Report]:
    """Largest differences between a module in PyTorch and its graph in ONNX Runtime; ExportError over the tolerance.

    A graph in fp16 is compared twice: computing in float32 with the module's weights rounded to fp16, which shows that
    it is the same network, and as it is, which shows what rounding costs. As they stand in the manifest.
    """
    reports = {}
    if precision == "fp16":
        rounded = to_float16(copy.deepcopy(module)).float()
        reports["differences_widened"] = measure(rounded, network, watched(widened(graph)), examples)
        check(reports["differences_widened"], network.name, "widened" if decisions_of(module) else "fp32")
    reports["differences"] = measure(module, network, watched(onnx_ir.load(graph)), examples)
    check(reports["differences"], network.name, precision)
    return reports


def measure(module: nn.Module, network: Network, graph: onnx_ir.Model, examples: Sequence[list[np.ndarray]]) -> Report:
    """Largest differences between a module and its watched graph, which both decide as the graph does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content(graph), options, providers=["CPUExecutionProvider"])
    outputs = [spec.name for spec in network.outputs]
    told = [output.name for output in session.get_outputs()]
    reports = []
    for inputs in examples:
        feeds = {spec.name: array for spec, array in zip(network.inputs, inputs, strict=True)}
        found = dict(zip(told, session.run(told, feeds), strict=True))
        with imposing(module, decisions_in(found)) as evidence:
            expected = dict(zip(outputs, run_module(module, inputs), strict=True))
        if isinstance(module, PromptedMasks):  # whether a pixel or an overlap is over its limit is decided as well
            expected |= merged(module, found)
        report = differences(expected, found)
        if evidence:
            report["evidence"] = margin(evidence, [by for by, _ in decisions_in(found)])
        reports.append(report)
    return largest(reports)


def merged(module: PromptedMasks, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Labels and suppression of a graph's own masks and scores."""
    with torch.no_grad():
        labels, lost_to = module.merging.merge(*(torch.from_numpy(found[name]) for name in ("mask_logits", "scores")))
    return {"label_slices": labels.numpy(), "lost_to": lost_to.numpy()}


def export_networks(
    modules: Mapping[str, nn.Module],
    variant: Variant,
    checkpoint_sha256: str,
    repository: Path,
    precision: str = "fp32",
    sizes: Sequence[tuple[int, int, int]] = COMPARED_SIZES,
) -> None:
    """Writes model.onnx, manifest.json and the CPU runners of every network into a model repository, and networks.json.

    Everything is made and compared under temporary names first. networks.json, without which nothing is segmented,
    goes before the old files are replaced and comes back last. sizes: slices or groups, prompts and tokens of what is
    compared.
    """
    examples = [
        example_inputs(variant, *size, run=lambda name, inputs: run_module(modules[name], inputs)) for size in sizes
    ]
    shared = {
        "variant": variant.name,
        "notice": variant.notice,
        "precision": precision,
        "checkpoint_sha256": checkpoint_sha256,
        "max_prompts": MAX_PROMPTS,
        **(
            {"noise_seed": NOISE_SEED, "noise_fields": MAX_DRAWS}
            if variant.model == "medimageparse_3d"
            else {"max_groups": MAX_GROUPS}
        ),
        "versions": {name: release(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")},
    }
    graphs, partial = {}, []
    for name, network in networks(variant).items():
        folder = repository / name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        graph = folder / "model.onnx.partial"
        module = modules[name]
        model = graph_of(to_float16(copy.deepcopy(module)) if precision == "fp16" else module, network)
        onnx_ir.save(model, graph)
        reports = compare(module, network, graph, [example[name] for example in examples], precision)
        said = summary(reports["differences"])
        logger.info("%s exported in %s; against PyTorch in fp32: %s", name, precision, said)
        graphs[name] = sha256(graph)
        opset = model.opset_imports[""]
        manifest = {"network": name, "graph_sha256": graphs[name], "opset": opset, **shared, **reports}
        partial += [graph, write_json(folder / "manifest.json.partial", manifest)]
    served = repository / variant.model / "1" / "networks.json"
    served.parent.mkdir(parents=True, exist_ok=True)
    served.unlink(missing_ok=True)
    for path in partial:
        path.replace(path.with_suffix(""))
    write_json(served, {"version": VERSION, **shared, "image_size": variant.image_size, "graphs": graphs})
