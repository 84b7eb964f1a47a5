"""Networks as functions of arrays: in PyTorch, or exported now and run by ONNX Runtime."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime
import torch
from medimageparse.export_onnx import graph_of
from medimageparse.served_tensors import Network, TensorSpec
from torch import Tensor, nn

Run = Callable[..., list[np.ndarray]]  # arrays in, arrays out


def in_torch(module: nn.Module) -> Run:
    def run(*inputs: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        tensors = [
            torch.from_numpy(x) if isinstance(x, np.ndarray) else [torch.from_numpy(y) for y in x] for x in inputs
        ]
        with torch.no_grad():
            outputs = module(*tensors)
        return [x.numpy() for x in ((outputs,) if isinstance(outputs, Tensor) else outputs)]

    return run


def in_onnxruntime(module: nn.Module, network: Network, noise: Sequence[TensorSpec] = ()) -> Run:
    """The network exported now, to a file that is gone once it is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx_ir.save(graph_of(module, network, noise), path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in (*network.inputs, *noise)]
    outputs = [spec.name for spec in network.outputs]

    def run(*inputs: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        arrays = [array for x in inputs for array in ([x] if isinstance(x, np.ndarray) else x)]
        return session.run(outputs, dict(zip(names, arrays, strict=True)))

    return run
