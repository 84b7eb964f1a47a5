"""The ways to run the three networks that are compared: the dictionary at the end, one technique a line."""

import copy
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from medimageparse.build_engine import build_plan
from medimageparse.export_onnx import to_float16
from medimageparse.served_tensors import Dimension, Network, networks
from medimageparse.variants import Variant
from served import random_graphs
from torch import Tensor, nn

TORCH_DTYPES = {np.float32: torch.float32, np.int64: torch.int64, np.uint8: torch.uint8}

Run = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Setup:
    """device: "cuda" or "cpu"; modules: fp32, on the device, by network; work: where exported graphs are kept."""

    device: str
    variant: Variant
    modules: Mapping[str, nn.Module]
    work: Path


def pytorch(
    setup: Setup,
    *,
    tf32: bool = False,
    weights: torch.dtype | None = None,
    autocast: torch.dtype | None = None,
    compiled: bool = False,
) -> dict[str, Run]:
    """PyTorch with its own copy of the weights, eager or compiled with CUDA graphs.

    weights: a half precision for what the fp16 export halves; the casts written in the networks do the rest
    """
    torch.compiler.reset()
    context = partial(torch.autocast, setup.device, autocast) if autocast else nullcontext

    def prepare(module: nn.Module) -> Run:
        module = copy.deepcopy(module) if weights is None else halved(module, weights)
        called = torch.compile(module, mode="reduce-overhead", dynamic=False) if compiled else module

        def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
            set_tf32(tf32)
            with torch.no_grad(), context():
                outputs = called(*inputs)
            outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
            # the next replay of a CUDA graph writes over its outputs
            return tuple(output.clone() for output in outputs) if compiled else outputs

        return run

    return {name: prepare(module) for name, module in setup.modules.items()}


def set_tf32(allowed: bool) -> None:
    """Whether float32 matrix products and convolutions may round their operands to TF32."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def halved(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose weights are in `dtype` where the fp16 export has float16: all but norms and buffers."""
    half = to_float16(copy.deepcopy(module))
    for parameter, original in zip(half.parameters(), module.parameters(), strict=True):
        if parameter.dtype == torch.float16:
            parameter.data = original.data.to(dtype)
    return half


def onnx_runtime(setup: Setup, *, precision: str = "fp32", tf32: bool = False) -> dict[str, Run]:
    """The exported graphs in ONNX Runtime, bound to inputs and outputs in memory of the device."""
    graphs = random_graphs(setup.work, setup.variant.name, precision)
    provider = "CUDAExecutionProvider" if setup.device == "cuda" else "CPUExecutionProvider"
    provider_options = {"use_tf32": int(tf32)} if setup.device == "cuda" else {}
    options = onnxruntime.SessionOptions()
    if setup.device == "cpu":
        options.intra_op_num_threads = torch.get_num_threads()

    def prepare(network: Network) -> Run:
        graph = graphs / network.name / "1" / "model.onnx"
        session = onnxruntime.InferenceSession(graph, options, [provider], [provider_options])
        if session.get_providers()[0] != provider:
            raise SystemExit("ONNX Runtime cannot use CUDA: onnxruntime-gpu or a library it needs is missing")
        return partial(run_bound, session, network, setup.device)

    return {name: prepare(network) for name, network in networks(setup.variant).items()}


def run_bound(
    session: onnxruntime.InferenceSession, network: Network, device: str, inputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """One run that reads and writes torch tensors where they are; it returns when the results are there."""
    outputs = empty_outputs(network, inputs, device)
    assert all(tensor.is_contiguous() for tensor in inputs)
    binding = session.io_binding()
    for specs, tensors, bind in (
        (network.inputs, inputs, binding.bind_input),
        (network.outputs, outputs, binding.bind_output),
    ):
        for spec, tensor in zip(specs, tensors, strict=True):
            bind(spec.name, device, 0, spec.dtype, tuple(tensor.shape), tensor.data_ptr())
    session.run_with_iobinding(binding)
    return tuple(outputs)


def empty_outputs(network: Network, inputs: Sequence[Tensor], device: str) -> list[Tensor]:
    """Room for what these inputs give."""
    sizes = dynamic_sizes(network, inputs)
    shapes = [[sizes[d.name] if isinstance(d, Dimension) else d for d in spec.shape] for spec in network.outputs]
    dtypes = [TORCH_DTYPES[spec.dtype] for spec in network.outputs]
    return [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in zip(shapes, dtypes, strict=True)]


def tensorrt(setup: Setup, *, precision: str) -> dict[str, Run]:
    """The exported graphs as engines that are built now, which takes minutes; a request asks for all outputs."""
    import tensorrt as trt

    graphs = random_graphs(setup.work, setup.variant.name, precision)
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))

    def prepare(network: Network) -> Run:
        engine = runtime.deserialize_cuda_engine(build_plan(trt, graphs / network.name / "1" / "model.onnx", network))
        return partial(run_engine, engine.create_execution_context(), network)

    return {name: prepare(network) for name, network in networks(setup.variant).items()}


def run_engine(context: Any, network: Network, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """One run on the stream that torch uses, from and to torch's tensors."""
    outputs = empty_outputs(network, inputs, "cuda")
    for spec, tensor in zip(network.inputs, inputs, strict=True):
        context.set_input_shape(spec.name, tuple(tensor.shape))
    for spec, tensor in zip((*network.inputs, *network.outputs), (*inputs, *outputs), strict=True):
        context.set_tensor_address(spec.name, tensor.data_ptr())
    if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
        raise SystemExit(f"the engine of {network.name} does not run")
    return tuple(outputs)


def dynamic_sizes(network: Network, inputs: Sequence[Tensor]) -> dict[str, int]:
    """Dynamic dimension -> its size in these inputs."""
    sizes = {
        dimension.name: size
        for spec, tensor in zip(network.inputs, inputs, strict=True)
        for dimension, size in zip(spec.shape, tensor.shape, strict=True)
        if isinstance(dimension, Dimension)
    }
    if "slices_and_halo" in sizes:
        sizes["slices"] = sizes["slices_and_halo"] - 2
    return sizes


TECHNIQUES: dict[str, Callable[[Setup], dict[str, Run]]] = {
    "eager-fp32": pytorch,
    "eager-tf32": partial(pytorch, tf32=True),
    "autocast-bf16": partial(pytorch, autocast=torch.bfloat16),
    "typed-fp16": partial(pytorch, weights=torch.float16),
    "compile-bf16": partial(pytorch, weights=torch.bfloat16, compiled=True),
    "onnxruntime-fp32": onnx_runtime,
    "onnxruntime-tf32": partial(onnx_runtime, tf32=True),
    "onnxruntime-fp16": partial(onnx_runtime, precision="fp16"),
}
if importlib.util.find_spec("tensorrt"):
    TECHNIQUES["tensorrt-fp16"] = partial(tensorrt, precision="fp16")
