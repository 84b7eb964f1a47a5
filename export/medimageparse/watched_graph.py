"""What an exported graph decides, shown as outputs or imposed as inputs, see decisions.py. Without torch."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir
from onnx_ir.convenience import replace_all_uses_with
from onnx_ir.passes.common import ShapeInferencePass

EVIDENCE, DECISION = "evidence", "decision"  # names of values inside a graph, each followed by _0, _1, ...


def decision_names(n: int) -> list[str]:
    """The names of n pairs of evidence and decision, in the order of calls."""
    return [f"{kind}_{number}" for number in range(n) for kind in (EVIDENCE, DECISION)]


def own_name(decision: str) -> str:
    """The name of what a graph would decide where the decision is imposed."""
    return f"own_{decision}"


def decided(model: onnx_ir.Model) -> list[onnx_ir.Value]:
    """Evidence and decision of every call inside a graph; none in encoders."""
    values = {value.name: value for node in model.graph for value in node.outputs}
    return [values[name] for name in decision_names(len(values)) if name in values]


def content(model: onnx_ir.Model) -> bytes:
    return onnx_ir.to_proto(model).SerializeToString()


def watched(model: onnx_ir.Model) -> onnx_ir.Model:
    """The graph with evidence and decisions as further outputs."""
    model.graph.outputs.extend(decided(model))
    return model


def decisions_in(told: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Evidence and decision of every call, from the outputs of a watched graph."""
    calls = range(sum(name.startswith(DECISION) for name in told))
    return [(told[f"{EVIDENCE}_{call}"], told[f"{DECISION}_{call}"]) for call in calls]


def imposed(model: onnx_ir.Model) -> onnx_ir.Model:
    """The graph with its decisions as further inputs, and its evidence and its own decisions as further outputs."""
    ShapeInferencePass()(model)  # an input has a type
    for value in decided(model):
        if value.name.startswith(DECISION):
            given = onnx_ir.Value(name=value.name, shape=value.shape, type=value.type)
            replace_all_uses_with(value, given)
            value.name = own_name(value.name)
            model.graph.inputs.append(given)
        model.graph.outputs.append(value)
    return model


def widened(path: Path) -> onnx_ir.Model:
    """A graph in fp16 that computes in float32: the same nodes and weights, so that nothing but rounding is lost."""
    model = onnx_ir.load(path)
    narrow, wide = onnx_ir.DataType.FLOAT16, onnx_ir.DataType.FLOAT
    for weights in model.graph.initializers.values():
        if weights.dtype == narrow:
            weights.const_value = onnx_ir.tensor(weights.const_value.numpy().astype(np.float32), name=weights.name)
            weights.dtype = wide
    for node in model.graph:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == narrow:
            node.attributes["to"] = onnx_ir.AttrInt64("to", wide)
        for value in node.outputs:
            if value.dtype == narrow:
                value.dtype = wide
    return model
