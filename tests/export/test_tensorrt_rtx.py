"""NVIDIA's compiler accepts every graph: it builds for SM80 without a GPU, with the twin of the serving package."""

import pytest
from medimageparse.build_engine import build_plan
from medimageparse.served_tensors import networks
from medimageparse.variants import TINY

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed (Linux x86-64 only)")


def for_sm80(config) -> None:
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM80, 0)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", tuple(networks(TINY)))
def test_builds_for_every_shape_of_the_table(exported, precision, name):
    plan = build_plan(trt, exported(precision) / name / "1" / "model.onnx", networks(TINY)[name], for_sm80)
    assert len(plan) > 10_000
