"""Does NVIDIA's compiler take the exported graphs? Found out on a CPU, by the twin of the package that serves."""

import logging
import time
from pathlib import Path
from typing import Any

import onnx_ir

from medimageparse.build_engine import build_plan, workspace_bytes
from medimageparse.engine_facts import described, megabytes
from medimageparse.errors import ExportError
from medimageparse.served_tensors import networks
from medimageparse.variants import Variant
from medimageparse.watched_graph import content, decided, watched

WITHOUT_COMPILER = (
    "the graphs are exported, but not checked: the package tensorrt_rtx is not importable here; "
    "pip install tensorrt-rtx-cu13==1.7.1.116 (Linux x86-64), or leave out --check-engine"
)
NOT_PROVEN = (
    "NVIDIA's compiler takes every graph. This does not prove that an engine of TensorRT itself builds, fits your "
    "GPU's memory, runs, computes what the graph computes or is fast: nothing was run. `make engines` on the serving "
    "GPU builds and compares."
)

logger = logging.getLogger(__name__)


def for_sm80(trt: Any, config: Any) -> None:
    """Builds for compute capability 8.0, the least that is served; without it the compiler asks this machine's GPU."""
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM80, 0)


def check_engines(repository: Path, variant: Variant) -> None:
    """Builds an engine of every exported graph of a variant, for every shape of the table, and throws it away.

    Where a network decides, also of the graph that tells what it decides, which `make engines` builds for its
    comparison. ExportError with the compiler's words where one is not taken, or where there is no compiler.
    """
    try:
        import tensorrt_rtx as trt
    except ImportError as error:
        raise ExportError(WITHOUT_COMPILER) from error
    workspace = workspace_bytes(trt)
    for name, network in networks(variant).items():
        path = repository / name / "1" / "model.onnx"
        graph = onnx_ir.load(path)
        logger.info("%s", described(network, graph, workspace))
        started = time.perf_counter()
        size = len(build_plan(trt, path.read_bytes(), network, lambda config: for_sm80(trt, config)))
        if decided(graph):
            build_plan(trt, content(watched(graph)), network, lambda config: for_sm80(trt, config))
        logger.info("%s: an engine for SM80 has %s, %.0f s", name, megabytes(size), time.perf_counter() - started)
    logger.info(NOT_PROVEN)
