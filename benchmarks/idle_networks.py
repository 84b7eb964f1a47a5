"""Graphs that compute nothing: a variant's inputs and image size, outputs that are constants, features of one number.

What a request takes with them is the service's own time.
"""

from pathlib import Path

import numpy as np
import onnx_ir
from medimageparse.export_onnx import OPSETS
from medimageparse.manifest import write_json
from medimageparse.served_tensors import Dimension, Network, TensorSpec, networks
from medimageparse.variants import Variant
from medimageparse_contract.version import VERSION
from onnx_ir.tape import Tape


def write_graphs(variant: Variant, n_labels: int, repository: Path) -> None:
    """model.onnx of each network, and networks.json, where `medimageparse export` writes them.

    n_labels: discs in every slice's label map
    """
    for name, network in networks(variant).items():
        folder = repository / name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        onnx_ir.save(graph_of(network, n_labels), folder / "model.onnx")
    served = repository / variant.model / "1"
    served.mkdir(parents=True, exist_ok=True)
    told = {"version": VERSION, "variant": variant.name, "notice": "networks that compute nothing", "graphs": {}}
    write_json(served / "networks.json", {**told, "precision": "none", "image_size": variant.image_size})


def graph_of(network: Network, n_labels: int) -> onnx_ir.Model:
    """Constants, made as large as the inputs say."""
    tape, inputs, outputs = Tape(), *([value_of(spec) for spec in specs] for specs in (network.inputs, network.outputs))
    given = {size: (value, axis) for value in inputs for axis, size in enumerate(value.shape)}

    def length(size: int | onnx_ir.SymbolicDim) -> onnx_ir.Value:
        if isinstance(size, int):
            return tape.op("Constant", [], {"value_ints": [size]})
        halo = onnx_ir.SymbolicDim(f"{size}_and_halo")  # a slice more on each side
        value, axis = given.get(size) or given[halo]
        found = tape.op("Shape", [value], {"start": axis, "end": axis + 1})
        return found if size in given else tape.op("Sub", [found, length(2)])

    for value, spec in zip(outputs, network.outputs, strict=True):
        content = tape.op("Constant", [], {"value": onnx_ir.tensor(content_of(spec, n_labels))})
        shape = tape.op("Concat", [length(size) for size in value.shape], {"axis": 0})
        tape.op("Expand", [content, shape], output=value)
    opsets = {"": OPSETS["fp32"]}
    graph = onnx_ir.Graph(inputs, outputs, nodes=tape.nodes, opset_imports=opsets, name=network.name)
    return onnx_ir.Model(graph, ir_version=10)


def sizes_of(spec: TensorSpec) -> list[int | Dimension]:
    """As served; the sides of what encoder and decoder speak of among themselves are 1."""
    is_feature = spec.name.startswith(("features", "memory"))
    return [1 if is_feature and not isinstance(size, Dimension) else size for size in spec.shape]


def value_of(spec: TensorSpec) -> onnx_ir.Value:
    shape = [size.name if isinstance(size, Dimension) else size for size in sizes_of(spec)]
    return onnx_ir.val(spec.name, onnx_ir.DataType.from_numpy(np.dtype(spec.dtype)), shape)


def content_of(spec: TensorSpec, n_labels: int) -> np.ndarray:
    """The constant of an output, 1 long where a dimension is dynamic: discs in labels, a hill in masks, else zero."""
    content = np.zeros([1 if isinstance(size, Dimension) else size for size in sizes_of(spec)], spec.dtype)
    side = content.shape[-1]
    y, x = np.mgrid[:side, :side] / side
    if spec.name == "mask_logits":
        content[:] = 10 - 40 * np.hypot(x - 0.45, y - 0.5)
    if spec.name == "label_slices":
        for label in range(1, n_labels + 1):
            centre = 0.5 + 0.3 * np.array([np.cos(label), np.sin(label)]) * (0.5 + label / 30)
            content[0, np.hypot(x - centre[0], y - centre[1]) < 0.02 + 0.005 * label] = label
    return content
