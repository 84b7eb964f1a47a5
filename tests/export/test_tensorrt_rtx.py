"""NVIDIA's compiler accepts every graph: it builds for SM80 without a GPU, with the twin of the serving package."""

import pytest
from helpers.tiny_networks import BOTH_PRECISIONS, EVERY_NETWORK
from medimageparse.build_engine import build_plan
from medimageparse.served_tensors import networks

pytestmark = pytest.mark.slow

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed (Linux x86-64 only)")


def for_sm80(config) -> None:
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM80, 0)


@BOTH_PRECISIONS
@EVERY_NETWORK
def test_builds_for_every_shape_of_the_table(exported, variant, name, precision):
    graph = exported(variant, precision) / name / "1" / "model.onnx"
    assert len(build_plan(trt, graph, networks(variant)[name], for_sm80)) > 10_000
