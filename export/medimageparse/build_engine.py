"""model.onnx -> model.plan for the GPU it runs on, each engine compared with ONNX Runtime. Without torch.

Works with tensorrt 10 and 11 and, as far as parsing and building go, with their twin tensorrt_rtx.
"""

import json
import logging
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
from medimageparse_contract.hashing import sha256
from medimageparse_contract.models import PUBLIC_MODELS

from medimageparse.comparison import (
    BOUNDED,
    COMPARED_SIZES,
    Report,
    check,
    difference,
    differences,
    example_inputs,
    largest,
    margin,
    summary,
)
from medimageparse.engine_facts import described, megabytes, shape
from medimageparse.errors import ExportError
from medimageparse.manifest import write_json
from medimageparse.served_tensors import Network, networks
from medimageparse.variants import VARIANTS
from medimageparse.watched_graph import DECISION, EVIDENCE, content, decided, imposed, own_name, watched

# NVIDIA's images of one month carry the same TensorRT; the tag is the one in the Dockerfile
CONTAINER = "nvcr.io/nvidia/tensorrt:26.09-py3"
WITHOUT_TENSORRT = (
    "the package tensorrt is not importable here; an engine runs only in the TensorRT version and on the kind of GPU "
    f"that built it, so run this on the serving GPU in {CONTAINER}, after "
    "`pip install onnxruntime-gpu==1.31.1 onnx-ir==1.1.0`"
)

logger = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], Arrays]


def build_plan(
    trt: ModuleType, graph: bytes, network: Network, configure: Callable[[Any], None] = lambda config: None
) -> bytes:
    """A serialized engine for every shape of the table; trt is the package tensorrt or tensorrt_rtx."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # the graph's own types are kept; TensorRT 11 knows nothing else and ignores the flag
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, logger)
    if not parser.parse(graph):
        raise ExportError(f"{network.name}: TensorRT does not accept the graph: {parser.get_error(0).desc()}")
    profile = builder.create_optimization_profile()
    for spec in network.inputs:
        profile.set_shape(spec.name, shape(spec, "smallest"), shape(spec, "usual"), shape(spec, "largest"))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32; who wants speed exports fp16
    configure(config)
    plan = builder.build_serialized_network(definition, config)
    if plan is None:
        raise ExportError(f"{network.name}: TensorRT could not build an engine; its messages above say why")
    return bytes(plan)


def workspace_bytes(trt: ModuleType) -> int:
    """What a builder may use for the temporaries of a layer: its default, which build_plan leaves."""
    config = trt.Builder(trt.Logger(trt.Logger.WARNING)).create_builder_config()
    return int(config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE))


class Engine:
    """A plan on the GPU, with arrays in and out; ONNX Runtime holds the GPU memory."""

    def __init__(self, trt: ModuleType, plan: bytes):
        self.runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        self.context = self.engine.create_execution_context()
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        outputs = [name for name in names if self.engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
        self.dtypes = {name: trt.nptype(self.engine.get_tensor_dtype(name)) for name in outputs}

    def __call__(self, inputs: Arrays) -> Arrays:
        tensors = {}
        for name, array in inputs.items():
            self.context.set_input_shape(name, array.shape)
            tensors[name] = onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
        for name, dtype in self.dtypes.items():
            found_shape = tuple(self.context.get_tensor_shape(name))
            tensors[name] = onnxruntime.OrtValue.ortvalue_from_shape_and_type(found_shape, dtype, "cuda", 0)
        for name, tensor in tensors.items():
            self.context.set_tensor_address(name, tensor.data_ptr())
        if not self.context.execute_async_v3(0):  # the default stream, which the copies below wait for
            raise ExportError("the engine does not run")
        return {name: tensors[name].numpy() for name in self.dtypes}


def on_gpu(graph: bytes) -> Run:
    """A graph in ONNX Runtime on the GPU: its outputs by name."""
    providers = [("CUDAExecutionProvider", {"use_tf32": "0"})]
    session = onnxruntime.InferenceSession(graph, providers=providers)
    if "CUDAExecutionProvider" not in session.get_providers():
        raise ExportError(
            "ONNX Runtime does not see the GPU; install onnxruntime-gpu for the CUDA version of the driver"
        )
    return of_session(session)


def of_session(session: onnxruntime.InferenceSession) -> Run:
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def build_engines(repository: Path) -> None:
    """Writes model.plan beside every exported model.onnx and adds what was measured to its manifest."""
    try:
        import tensorrt as trt
    except ImportError as error:
        raise ExportError(WITHOUT_TENSORRT) from error
    exported = [path for model in PUBLIC_MODELS if (path := repository / model / "1" / "networks.json").exists()]
    if not exported:
        raise ExportError("there are no exported graphs in this repository; run `make export` first")
    for served in exported:
        build_engines_of(trt, repository, json.loads(served.read_text()))


def build_engines_of(trt: ModuleType, repository: Path, exported: Mapping[str, Any]) -> None:
    """The engines of one public model; exported: its networks.json."""
    variant = VARIANTS[exported["variant"]]
    table = networks(variant)
    graphs = {name: repository / name / "1" / "model.onnx" for name in table}
    runs = {name: on_gpu(graph.read_bytes()) for name, graph in graphs.items()}

    def run_graph(name: str, inputs: list[np.ndarray]) -> list[np.ndarray]:
        found = runs[name](named(table[name], inputs))
        return [found[spec.name] for spec in table[name].outputs]

    examples = [example_inputs(variant, *sizes, run=run_graph) for sizes in COMPARED_SIZES]
    for name, network in table.items():
        logger.info("%s", described(network, onnx_ir.load(graphs[name]), workspace_bytes(trt)))
        logger.info("%s: building its engine, which takes minutes", name)
        plan = build_plan(trt, graphs[name].read_bytes(), network)
        served = telling = Engine(trt, plan)
        reference = runs[name]
        if decided(onnx_ir.load(graphs[name])):
            logger.info("%s: building another that tells what it decides, for the comparison", name)
            telling = Engine(trt, build_plan(trt, content(watched(onnx_ir.load(graphs[name]))), network))
            reference = on_gpu(content(imposed(onnx_ir.load(graphs[name]))))
        given = [named(network, example[name]) for example in examples]
        report = compare_engine(network, given, served, telling, reference, exported["precision"])
        sizes = megabytes(len(plan)), megabytes(served.engine.device_memory_size_v2)
        logger.info("%s built: %s, and %s are reserved for each instance that runs it", name, *sizes)
        logger.info("%s against ONNX Runtime on the same GPU: %s", name, summary(report))
        install(graphs[name].with_name("model.plan"), plan, trt.__version__, report)


def compare_engine(
    network: Network, examples: Sequence[Arrays], served: Run, telling: Run, reference: Run, precision: str
) -> Report:
    """Largest differences between engines and their graph; ExportError over the tolerance.

    served: the engine. telling: the same with its evidence and decisions as outputs; the same run where nothing is
    decided. reference: the graph with decisions as inputs (watched_graph.imposed), so that both decide as the telling
    engine does. The served engine decides for itself, so it is compared with the telling one by medians.
    """
    reports = []
    for inputs in examples:
        told = telling(inputs)
        decisions = {name: told[name] for name in told if name.startswith(DECISION)}
        expected = reference(inputs | decisions)
        report = differences({spec.name: expected[spec.name] for spec in network.outputs}, told)
        if "lost_to" in report:  # pixels and overlaps within rounding of their limits
            report["label_slices"] = {"other_pixels": report["label_slices"]["unequal"]}
            report["lost_to"] = {"other_winner": report["lost_to"]["unequal"]}
        if decisions:
            pairs = [(expected[name], told[name]) for name in told if name.startswith(EVIDENCE)]
            own = [expected[own_name(name)] != decision for name, decision in decisions.items()]
            report["evidence"] = margin(*zip(*pairs, strict=True)) | {"other_draws": max(float(o.mean()) for o in own)}
            check(medians(network, told, served(inputs)), network.name, "as served")
        reports.append(report)
    report = largest(reports)
    check(report, network.name, precision)
    return report


def medians(network: Network, expected: Arrays, found: Arrays) -> Report:
    """How far the outputs of two runs are apart, as medians over slices or prompts: single decisions may differ."""
    report = {}
    for spec in network.outputs:
        if spec.dtype == np.float32 and spec.name not in BOUNDED:
            rows = [difference(*pair) for pair in zip(expected[spec.name], found[spec.name], strict=True)]
            report[spec.name] = {"relative": float(np.median([row["relative"] for row in rows]))}
    return report


def named(network: Network, inputs: list[np.ndarray]) -> Arrays:
    return {spec.name: np.ascontiguousarray(array) for spec, array in zip(network.inputs, inputs, strict=True)}


def install(path: Path, plan: bytes, tensorrt_version: str, differences: Mapping) -> None:
    """Puts a finished plan where it is served and notes in the manifest what it is made of and for."""
    partial = path.with_suffix(".plan.partial")
    partial.write_bytes(plan)
    partial.replace(path)
    manifest = json.loads(path.with_name("manifest.json").read_text())
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader", "--id=0"]
    manifest["engine"] = {
        "plan_sha256": sha256(path),
        "tensorrt": tensorrt_version,
        "gpu": subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip(),
        "differences_from_onnxruntime": differences,
    }
    write_json(path.with_name("manifest.json"), manifest)
