"""NVIDIA's compiler accepts every graph: it builds for SM80 without a GPU, with the twin of the serving package."""

import logging
import shutil
import sys

import onnx_ir
import pytest
from helpers.tiny_networks import BOTH_MODELS, BOTH_PRECISIONS, EVERY_NETWORK
from medimageparse.build_engine import build_plan, workspace_bytes
from medimageparse.check_engine import NOT_PROVEN, check_engines, for_sm80
from medimageparse.errors import ExportError
from medimageparse.served_tensors import networks
from medimageparse.variants import TINY
from medimageparse.watched_graph import content, watched

pytestmark = pytest.mark.slow

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed (Linux x86-64 only)")


@BOTH_PRECISIONS
@EVERY_NETWORK
def test_builds_for_every_shape_of_the_table(exported, variant, name, precision):
    graph = (exported(variant, precision) / name / "1" / "model.onnx").read_bytes()
    plan = build_plan(trt, graph, networks(variant)[name], lambda config: for_sm80(trt, config))
    assert len(plan) > 10_000


@BOTH_MODELS
def test_builds_the_mask_decoder_that_tells_what_it_decides(exported, variant):
    *_, name = networks(variant)
    graph = content(watched(onnx_ir.load(exported(variant, "fp16") / name / "1" / "model.onnx")))
    assert len(build_plan(trt, graph, networks(variant)[name], lambda config: for_sm80(trt, config))) > 10_000


def test_the_check_says_what_it_builds_and_what_that_does_not_prove(exported, caplog):
    with caplog.at_level(logging.INFO, "medimageparse"):
        check_engines(exported(TINY, "fp32"), TINY)
    said = caplog.text
    for name in networks(TINY):
        assert f"{name}:\n  optimization profile" in said
        assert f"{name}: an engine for SM80 has " in said
    assert caplog.messages[-1] == NOT_PROVEN


def test_a_graph_that_the_compiler_does_not_take_ends_the_check(exported, tmp_path):
    repository = tmp_path / "repository"
    shutil.copytree(exported(TINY, "fp32"), repository)
    path = repository / "text_encoder_3d" / "1" / "model.onnx"
    model = onnx_ir.load(path)
    next(node for node in model.graph if node.op_type == "MatMul").op_type = "NoSuchProduct"
    onnx_ir.save(model, path)
    with pytest.raises(ExportError, match="text_encoder_3d: TensorRT does not accept the graph"):
        check_engines(repository, TINY)


def test_without_the_compiler_the_check_says_what_to_install(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(ExportError, match="pip install tensorrt-rtx-cu13=="):
        check_engines(exported(TINY, "fp32"), TINY)


def test_the_builder_has_a_workspace():
    assert workspace_bytes(trt) > 10**9
