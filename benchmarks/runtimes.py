"""Networks run in this program: tensors by the names that they are served under, in and out."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from medimageparse.served_tensors import Network
from torch import Tensor

Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]  # what is known of a request -> what a network adds


def onnx_run(graph: Path, device: str = "cpu") -> Run:
    """By ONNX Runtime; inputs and outputs lie in memory of the device."""
    from onnxruntime import InferenceSession, OrtValue, SessionOptions

    provider, settings = ("CUDAExecutionProvider", {"use_tf32": 0}), SessionOptions()
    if device == "cpu":
        provider, settings.intra_op_num_threads = ("CPUExecutionProvider", {}), torch.get_num_threads()
    session = InferenceSession(graph, settings, [provider])
    if session.get_providers()[0] != provider[0]:
        raise SystemExit("ONNX Runtime cannot use CUDA: onnxruntime-gpu or a library it needs is missing")
    outputs = [output.name for output in session.get_outputs()]

    def run(known: Mapping[str, Tensor]) -> dict[str, Tensor]:
        binding = session.io_binding()
        for spec in session.get_inputs():
            binding.bind_ortvalue_input(spec.name, OrtValue.from_dlpack(known[spec.name].contiguous()))
        for name in outputs:
            binding.bind_output(name, device)
        session.run_with_iobinding(binding)  # returns when the results are there
        return dict(zip(outputs, map(torch.from_dlpack, binding.get_outputs()), strict=True))

    return run


def openvino_run(graph: Path, network: Network) -> Run:
    """In bf16, as RUNTIME=cpu-bf16 serves the image encoders."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()

    def run(known: Mapping[str, Tensor]) -> dict[str, Tensor]:
        results = request.infer([known[spec.name].numpy() for spec in network.inputs])
        return {spec.name: torch.from_numpy(results[spec.name]) for spec in network.outputs}

    return run


def named(network: Network, call: Callable[..., Tensor | tuple[Tensor, ...]]) -> Run:
    """A function of a network's inputs, in their order; it may leave out the last outputs."""

    def run(known: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = call(*(known[spec.name] for spec in network.inputs))
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        return dict(zip((spec.name for spec in network.outputs), outputs, strict=False))

    return run


def now(device: str = "cpu") -> float:
    """Seconds of the clock, once the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
