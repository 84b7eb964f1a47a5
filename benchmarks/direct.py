"""An exported graph run in this program, as the server's python steps run it, but with nothing between processes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx.utils
import onnxruntime
import openvino
from medimageparse.served_tensors import Network

Run = Callable[[Sequence[np.ndarray], Sequence[str]], list[np.ndarray]]  # inputs, names of outputs -> these


def asked_and_not(network: Network) -> tuple[list[str], list[str]]:
    """Outputs that the served pipeline asks for, and the others: of the 3D mask decoder what it merges into labels."""
    outputs = [spec.name for spec in network.outputs]
    asked = [name for name in ("label_slices", "scores") if name in outputs] or outputs
    return asked, [name for name in outputs if name not in asked]


def onnx_run(graph: Path, threads: int, only: Sequence[str] = ()) -> Run:
    """In fp32, as RUNTIME=cpu. ONNX Runtime computes the whole graph; `only` leaves what leads to these outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    file = graph if not only else cut(onnx.load(graph), only).SerializeToString()
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda arrays, outputs: session.run(outputs, dict(zip(names, arrays, strict=True)))


def cut(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    inputs = [value.name for value in model.graph.input]
    return onnx.utils.Extractor(model).extract_model(inputs, list(outputs))


def openvino_run(graph: Path, threads: int) -> Run:
    """In bf16, as RUNTIME=cpu-bf16 serves the image encoders."""
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()

    def run(arrays: Sequence[np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        results = request.infer(list(arrays))
        return [results[name] for name in outputs]

    return run
