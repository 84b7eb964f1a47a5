"""Exported graphs: the table's tensors, PyTorch's results at any size, equal files from equal weights, manifests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from google.protobuf import text_format
from medimageparse import export_onnx
from medimageparse.__main__ import REPOSITORY, main
from medimageparse.build_engine import CONTAINER
from medimageparse.comparison import difference, example_inputs
from medimageparse.errors import ExportError
from medimageparse.export_onnx import export_networks, graph_of, run_module
from medimageparse.manifest import sha256
from medimageparse.networks import build_random
from medimageparse.repository_copy import copy_repository
from medimageparse.served_tensors import Dimension, networks
from medimageparse.variants import MAX_PROMPTS, TINY
from tritonclient.grpc.model_config_pb2 import ModelConfig

from .conftest import SEED

NAMES = tuple(networks(TINY))
PRECISIONS = ("fp32", "fp16")
ONNX_TYPES = {np.float32: onnx.TensorProto.FLOAT, np.int64: onnx.TensorProto.INT64, np.uint8: onnx.TensorProto.UINT8}


@pytest.fixture(scope="module")
def modules():
    return build_random(TINY, SEED)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_those_of_the_table(exported, precision, name):
    graph = onnx.load(exported(precision) / name / "1" / "model.onnx").graph
    for values, specs in ((graph.input, networks(TINY)[name].inputs), (graph.output, networks(TINY)[name].outputs)):
        found = [
            (v.name, v.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim])
            for v in values
        ]
        shapes = [[d.name if isinstance(d, Dimension) else d for d in spec.shape] for spec in specs]
        assert found == [(s.name, ONNX_TYPES[s.dtype], shape) for s, shape in zip(specs, shapes, strict=True)]


@pytest.fixture(scope="module")
def sessions(exported):
    return {name: onnxruntime.InferenceSession(exported("fp32") / name / "1" / "model.onnx") for name in NAMES}


@pytest.mark.parametrize("sizes", [(1, 1, 2), (1, 5, 3), (5, 1, 7), (2, 20, 12), (4, 3, 77)], ids=str)
def test_any_number_of_slices_prompts_and_tokens_gives_what_pytorch_gives(sessions, modules, sizes):
    inputs = example_inputs(TINY, *sizes, run=lambda name, arrays: run_module(modules[name], arrays))
    for name, network in networks(TINY).items():
        feeds = {spec.name: array for spec, array in zip(network.inputs, inputs[name], strict=True)}
        expected, found = run_module(modules[name], inputs[name]), sessions[name].run(None, feeds)
        for spec, e, f in zip(network.outputs, expected, found, strict=True):
            measured = difference(e, f)
            assert measured.get("relative", 0) < 1e-4, spec.name
            assert measured.get("unequal", 0) < 1e-3, spec.name


def test_float16_keeps_its_islands(exported):
    graph = onnx_ir.load(exported("fp16") / "mask_decoder_3d" / "1" / "model.onnx").graph
    in_float32 = {"Softmax", "Sigmoid", "LayerNormalization", "Pow"}
    assert {node.op_type for node in graph if node.inputs[0].dtype == onnx_ir.DataType.FLOAT} >= in_float32
    assert not {node.op_type for node in graph if node.inputs[0].dtype == onnx_ir.DataType.FLOAT16} & in_float32
    assert graph.initializers["noise_0"].dtype == onnx_ir.DataType.FLOAT
    assert graph.initializers["mask_decoder.classifier.bias"].dtype == onnx_ir.DataType.FLOAT16


@pytest.mark.parametrize("precision", PRECISIONS)
def test_manifests_say_what_was_made_of_what(exported, precision):
    repository = exported(precision)
    served = json.loads((repository / "segment_volume" / "1" / "networks.json").read_text())
    assert served["image_size"] == TINY.image_size
    assert served["max_prompts"] == MAX_PROMPTS
    for name in NAMES:
        folder = repository / name / "1"
        assert {path.name for path in folder.iterdir()} == {"model.onnx", "manifest.json", "onnxruntime_model.py"}
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["graph_sha256"] == sha256(folder / "model.onnx") == served["graphs"][name]
        assert (manifest["variant"], manifest["precision"]) == ("TINY", precision)
        assert manifest["checkpoint_sha256"] == f"random weights, seed {SEED}"
        assert set(manifest["differences"]) == {spec.name for spec in networks(TINY)[name].outputs}


def test_equal_weights_give_equal_bytes_without_paths(exported, tmp_path):
    name = "text_encoder_3d"
    again = tmp_path / "model.onnx"
    onnx_ir.save(graph_of(build_random(TINY, SEED)[name], networks(TINY)[name]), again)
    content = again.read_bytes()
    assert content == (exported("fp32") / name / "1" / "model.onnx").read_bytes()
    assert str(Path(export_onnx.__file__).parent).encode() not in content
    assert b".py" not in content


def test_a_wrong_graph_is_not_installed(modules, tmp_path, monkeypatch):
    other = build_random(TINY, SEED + 1)
    monkeypatch.setattr(export_onnx, "graph_of", lambda module, network: graph_of(other[network.name], network))
    with pytest.raises(ExportError, match=r"text_encoder_3d: text_features differs by .* fp32 allows"):
        export_networks(modules, TINY, "none", tmp_path)
    assert not list(tmp_path.rglob("model.onnx"))
    assert not list(tmp_path.rglob("networks.json"))


def test_a_repository_copy_carries_the_sizes_of_its_variant(tmp_path):
    copy = copy_repository(REPOSITORY, tmp_path / "copy", TINY)
    for name, network in networks(TINY).items():
        for path in (copy / name / "config.pbtxt", copy / name / "configs" / "onnxruntime.pbtxt"):
            config = text_format.Parse(path.read_text(), ModelConfig())
            found = {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)}
            specs = (*network.inputs, *network.outputs)
            assert found == {s.name: [-1 if isinstance(d, Dimension) else d for d in s.shape] for s in specs}


def test_engines_build_where_there_is_no_torch():
    script = "import sys; sys.modules['torch'] = None; import medimageparse.__main__, medimageparse.build_engine"
    path = os.pathsep.join([str(Path(export_onnx.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": path})


def test_engines_without_tensorrt_say_what_to_do(tmp_path, capsys):
    assert main(["engines", "--repository", str(tmp_path)]) == 1
    assert CONTAINER in capsys.readouterr().err
