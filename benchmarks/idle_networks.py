"""Graphs that compute nothing: a variant's inputs and image size, outputs that are constants, features of one number.

What a request takes with them is the service's own time.
"""

from pathlib import Path

import numpy as np
import onnx
from medimageparse.export_onnx import OPSET
from medimageparse.manifest import write_json
from medimageparse.served_tensors import Dimension, Network, TensorSpec, networks
from medimageparse.variants import Variant
from medimageparse_contract.version import VERSION
from onnx import TensorProto, helper, numpy_helper

TYPES = {np.float32: TensorProto.FLOAT, np.int64: TensorProto.INT64, np.uint8: TensorProto.UINT8}


def write_graphs(variant: Variant, n_labels: int, repository: Path) -> None:
    """model.onnx of each network, and networks.json, where `medimageparse export` writes them.

    n_labels: discs in every slice's label map
    """
    for name, network in networks(variant).items():
        folder = repository / name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(graph_of(network, n_labels), folder / "model.onnx")
    served = repository / variant.model / "1"
    served.mkdir(parents=True, exist_ok=True)
    told = {"version": VERSION, "variant": variant.name, "notice": "networks that compute nothing", "graphs": {}}
    write_json(served / "networks.json", {**told, "precision": "none", "image_size": variant.image_size})


def graph_of(network: Network, n_labels: int) -> onnx.ModelProto:
    nodes, constants = [], []

    def constant(array: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(array, f"constant_{len(constants)}"))
        return constants[-1].name

    def node(operator: str, *inputs: str, output: str = "", **attributes: int) -> str:
        nodes.append(helper.make_node(operator, inputs, [output or f"value_{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def length(dimension: Dimension) -> str:
        """The size of a dynamic dimension, by an input that has it; slices also by those with a halo."""
        for names, fewer in (((dimension.name,), 0), ((f"{dimension.name}_and_halo",), 2)):
            for spec in network.inputs:
                for axis, size in enumerate(spec.shape):
                    if isinstance(size, Dimension) and size.name in names:
                        found = node("Shape", spec.name, start=axis, end=axis + 1)
                        return node("Sub", found, constant(np.array([fewer]))) if fewer else found
        raise ValueError(f"no input of {network.name} has {dimension.name}")

    for spec in network.outputs:
        value = content_of(spec, n_labels)
        sizes = [length(d) if isinstance(d, Dimension) else "" for d in spec.shape]
        known = [name or constant(np.array([n])) for name, n in zip(sizes, value.shape, strict=True)]
        node("Expand", constant(value), node("Concat", *known, axis=0), output=spec.name)
    inputs, outputs = ([value_info(spec) for spec in specs] for specs in (network.inputs, network.outputs))
    graph = helper.make_graph(nodes, network.name, inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def is_feature(spec: TensorSpec) -> bool:
    """Whether encoder and decoder speak of it among themselves; its sides are 1 here."""
    return spec.name.startswith(("features", "memory"))


def value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    sizes = [1 if is_feature(spec) and not isinstance(d, Dimension) else d for d in spec.shape]
    shape = [d.name if isinstance(d, Dimension) else d for d in sizes]
    return helper.make_tensor_value_info(spec.name, TYPES[spec.dtype], shape)


def content_of(spec: TensorSpec, n_labels: int) -> np.ndarray:
    """The constant of an output, 1 long where a dimension is dynamic: discs in labels, a hill in masks, else zero."""
    if spec.name not in ("label_slices", "mask_logits"):
        return np.zeros([1 if isinstance(d, Dimension) or is_feature(spec) else d for d in spec.shape], spec.dtype)
    side = spec.shape[-1]
    y, x = np.mgrid[:side, :side] / side
    if spec.name == "mask_logits":
        return (
            (10 - 40 * np.hypot(x - 0.45, y - 0.5)).astype(np.float32).reshape([1] * (len(spec.shape) - 2) + [side] * 2)
        )
    labels = np.zeros((1, side, side), np.uint8)
    for label in range(1, n_labels + 1):
        centre = 0.5 + 0.3 * np.array([np.cos(label), np.sin(label)]) * (0.5 + label / 30)
        labels[0][np.hypot(x - centre[0], y - centre[1]) < 0.02 + 0.005 * label] = label
    return labels
