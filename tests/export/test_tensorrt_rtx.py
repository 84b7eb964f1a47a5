"""NVIDIA's compiler accepts every graph: it builds for SM80 without a GPU, with the twin of the serving package."""

import onnx_ir
import pytest
from helpers.tiny_networks import BOTH_MODELS, BOTH_PRECISIONS, EVERY_NETWORK
from medimageparse.build_engine import build_plan
from medimageparse.served_tensors import networks
from medimageparse.watched_graph import content, watched

pytestmark = pytest.mark.slow

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed (Linux x86-64 only)")


def for_sm80(config) -> None:
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM80, 0)


@BOTH_PRECISIONS
@EVERY_NETWORK
def test_builds_for_every_shape_of_the_table(exported, variant, name, precision):
    graph = (exported(variant, precision) / name / "1" / "model.onnx").read_bytes()
    assert len(build_plan(trt, graph, networks(variant)[name], for_sm80)) > 10_000


@BOTH_MODELS
def test_builds_the_mask_decoder_that_tells_what_it_decides(exported, variant):
    *_, name = networks(variant)
    graph = content(watched(onnx_ir.load(exported(variant, "fp16") / name / "1" / "model.onnx")))
    assert len(build_plan(trt, graph, networks(variant)[name], for_sm80)) > 10_000
