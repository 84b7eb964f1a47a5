"""Exported graphs: the table's tensors, PyTorch's results at any size, equal files from equal weights, manifests."""

import copy
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
from helpers.tiny_networks import BOTH_MODELS, BOTH_PRECISIONS, EVERY_NETWORK, SEED, random_networks
from medimageparse import export_onnx
from medimageparse.__main__ import REPOSITORY, main
from medimageparse.build_engine import CONTAINER
from medimageparse.comparison import differences, example_inputs
from medimageparse.errors import ExportError
from medimageparse.export_onnx import export_networks, graph_of, run_module
from medimageparse.networks import build_random
from medimageparse.networks_3d import NOISE_SEED
from medimageparse.repository_copy import copy_repository
from medimageparse.served_tensors import Dimension, networks
from medimageparse.variants import MAX_GROUPS, MAX_PROMPTS, TINY, TINY_2D, VOCABULARY_SIZE
from medimageparse_contract.categories import CLASSES
from medimageparse_contract.hashing import sha256
from medimageparse_contract.options import MAX_DRAWS
from tritonclient.grpc.model_config_pb2 import ModelConfig

pytestmark = pytest.mark.slow

ONNX_TYPES = {np.float32: onnx.TensorProto.FLOAT, np.int64: onnx.TensorProto.INT64, np.uint8: onnx.TensorProto.UINT8}
SIZES = {  # slices or groups, prompts, tokens
    TINY: [(1, 1, 2), (1, 5, 3), (5, 1, 7), (2, 20, 12), (4, 3, 77)],
    TINY_2D: [(1, 1, 2), (1, 5, 3), (1, 3, 77), (1, MAX_PROMPTS, 6), (4, 12, 9), (MAX_GROUPS, MAX_GROUPS, 7)],
}


@BOTH_PRECISIONS
@EVERY_NETWORK
def test_tensors_are_those_of_the_table(exported, variant, name, precision):
    graph = onnx.load(exported(variant, precision) / name / "1" / "model.onnx").graph
    network = networks(variant)[name]
    for values, specs in ((graph.input, network.inputs), (graph.output, network.outputs)):
        found = [
            (v.name, v.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim])
            for v in values
        ]
        shapes = [[d.name if isinstance(d, Dimension) else d for d in spec.shape] for spec in specs]
        assert found == [(s.name, ONNX_TYPES[s.dtype], shape) for s, shape in zip(specs, shapes, strict=True)]


@pytest.fixture(scope="module")
def run_graph(exported):
    """A network's outputs by name, from its graph in fp32."""
    sessions = {}

    def run(variant, name, arrays):
        if name not in sessions:
            sessions[name] = onnxruntime.InferenceSession(exported(variant, "fp32") / name / "1" / "model.onnx")
        network = networks(variant)[name]
        feeds = {spec.name: array for spec, array in zip(network.inputs, arrays, strict=True)}
        outputs = [spec.name for spec in network.outputs]
        return dict(zip(outputs, sessions[name].run(outputs, feeds), strict=True))

    return run


@pytest.mark.parametrize(
    ("variant", "sizes"),
    [
        pytest.param(variant, sizes, id=f"{variant.name}-{'-'.join(map(str, sizes))}")
        for variant, of_variant in SIZES.items()
        for sizes in of_variant
    ],
)
def test_any_number_of_slices_groups_prompts_and_tokens_gives_what_pytorch_gives(run_graph, variant, sizes):
    modules = random_networks(variant)
    inputs = example_inputs(variant, *sizes, run=lambda name, arrays: run_module(modules[name], arrays))
    if variant is TINY_2D:
        n_groups, n_prompts, _ = sizes
        assert inputs["mask_decoder"][-1].shape == (n_groups, n_prompts // n_groups)
    for name, network in networks(variant).items():
        outputs = [spec.name for spec in network.outputs]
        expected = dict(zip(outputs, run_module(modules[name], inputs[name]), strict=True))
        for output, measured in differences(expected, run_graph(variant, name, inputs[name])).items():
            assert measured.get("relative", 0) < 1e-4, output
            assert measured.get("unequal", 0) < 1e-3, output


def test_padding_with_end_marks_changes_no_prompt(run_graph):
    ids = np.array([[VOCABULARY_SIZE - 2, 7, VOCABULARY_SIZE - 1]])
    padded = np.pad(ids, [(0, 0), (0, 9)], constant_values=VOCABULARY_SIZE - 1)
    mask = (np.arange(12) < 3).astype(np.int64)[None]
    expected = run_graph(TINY_2D, "text_encoder", [ids, np.ones_like(ids)])
    found = run_graph(TINY_2D, "text_encoder", [padded, mask])
    np.testing.assert_allclose(found["prompt_features"], expected["prompt_features"], atol=1e-5)
    np.testing.assert_allclose(found["token_features"][:, :3], expected["token_features"], atol=1e-5)
    assert not found["token_features"][:, 3:].any()


@pytest.fixture(scope="module")
def request_of_four():
    """Inputs of the 2D mask decoder for four prompts in one group."""
    modules = random_networks(TINY_2D)
    return example_inputs(TINY_2D, 1, 4, 6, run=lambda name, arrays: run_module(modules[name], arrays))["mask_decoder"]


def test_groups_do_not_see_each_other(run_graph, request_of_four):
    *features, tokens, mask, prompts, together = request_of_four
    apart = run_graph(TINY_2D, "mask_decoder", [*features, tokens, mask, prompts, together.T])
    for prompt in range(4):
        mine = [array[prompt : prompt + 1] for array in (tokens, mask, prompts)]
        alone = run_graph(TINY_2D, "mask_decoder", [*features, *mine, np.zeros((1, 1), np.int64)])
        for name, array in alone.items():
            np.testing.assert_allclose(apart[name][prompt], array[0], rtol=1e-4, atol=1e-4, err_msg=name)


def test_prompts_of_a_group_see_each_other_in_any_order(run_graph, request_of_four):
    *features, tokens, mask, prompts, together = request_of_four
    expected = run_graph(TINY_2D, "mask_decoder", request_of_four)
    turned = [array[::-1].copy() for array in (tokens, mask, prompts)]
    found = run_graph(TINY_2D, "mask_decoder", [*features, *turned, together])
    for name, array in expected.items():
        np.testing.assert_allclose(found[name][::-1], array, rtol=1e-4, atol=1e-4, err_msg=name)
    apart = run_graph(TINY_2D, "mask_decoder", [*features, tokens, mask, prompts, together.T])
    assert np.abs(apart["mask_logits"] - expected["mask_logits"]).max() > 0.1


NORMS = {"LayerNormalization", "GroupNormalization"}


@pytest.mark.parametrize(
    ("variant", "in_float32", "n_draws"),
    [(TINY, {"Sigmoid", "Pow"}, TINY.n_decoder_layers), (TINY_2D, {"Sigmoid", "ReduceL2", "Less", "ArgMax"}, 0)],
)
def test_float16_keeps_its_islands(exported, variant, in_float32, n_draws):
    text, _, masks = (
        onnx_ir.load(exported(variant, "fp16") / name / "1" / "model.onnx").graph for name in networks(variant)
    )
    of_dtype = {
        dtype: [node.op_type for node in masks if node.inputs[0].dtype == dtype]
        for dtype in (onnx_ir.DataType.FLOAT, onnx_ir.DataType.FLOAT16)
    }
    assert of_dtype[onnx_ir.DataType.FLOAT].count("Softmax") == n_draws  # attention's is in float16
    assert in_float32 <= {*of_dtype[onnx_ir.DataType.FLOAT]}
    assert not in_float32 & {*of_dtype[onnx_ir.DataType.FLOAT16]}
    assert masks.initializers["mask_decoder.layers.0.ffn.linear1.bias"].dtype == onnx_ir.DataType.FLOAT16
    assert {node.inputs[0].dtype for node in text if node.op_type in NORMS} == {onnx_ir.DataType.FLOAT}  # their epsilon


@pytest.mark.parametrize("variant", [TINY, TINY_2D], ids=lambda variant: variant.name)
def test_norms_of_float16_compute_in_float32_inside(exported, variant):
    _, *names = networks(variant)
    for name in names:
        graph = onnx_ir.load(exported(variant, "fp16") / name / "1" / "model.onnx").graph
        norms = [node for node in graph if node.op_type in NORMS]
        assert norms
        for node in norms:
            assert {value.dtype for value in (*node.inputs, *node.outputs)} == {onnx_ir.DataType.FLOAT16}
            inside = node.attributes.get("stash_type")
            assert inside is None or inside.as_int() == onnx_ir.DataType.FLOAT  # which is the default


def test_noise_stays_in_float32(exported):
    graph = onnx_ir.load(exported(TINY, "fp16") / "mask_decoder_3d" / "1" / "model.onnx").graph
    shape = (TINY.n_heads, MAX_DRAWS, TINY.n_queries)
    fields = [value for value in graph.initializers.values() if tuple(value.shape)[:3] == shape]
    assert len(fields) == TINY.n_decoder_layers
    assert {value.dtype for value in fields} == {onnx_ir.DataType.FLOAT}


def test_class_embeddings_stay_in_float32(exported):
    graph = onnx_ir.load(exported(TINY_2D, "fp16") / "mask_decoder" / "1" / "model.onnx").graph
    shape = (TINY_2D.width, len(CLASSES))
    (found,) = [value for value in graph.initializers.values() if tuple(value.shape) == shape]
    expected = random_networks(TINY_2D)["mask_decoder"].class_embeddings.numpy()
    assert np.array_equal(found.const_value.numpy(), expected.T)


@BOTH_PRECISIONS
@BOTH_MODELS
def test_manifests_say_what_was_made_of_what(exported, variant, precision):
    repository = exported(variant, precision)
    served = json.loads((repository / variant.model / "1" / "networks.json").read_text())
    assert served["image_size"] == variant.image_size
    assert served["max_prompts"] == MAX_PROMPTS
    of_model = {"noise_seed": NOISE_SEED, "noise_fields": MAX_DRAWS} if variant is TINY else {"max_groups": MAX_GROUPS}
    assert of_model.items() <= served.items()
    assert list(served["graphs"]) == list(networks(variant))
    for name, network in networks(variant).items():
        folder = repository / name / "1"
        assert {path.name for path in folder.iterdir()} == {"model.onnx", "manifest.json"}
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["graph_sha256"] == sha256(folder / "model.onnx") == served["graphs"][name]
        assert (manifest["variant"], manifest["precision"]) == (variant.name, precision)
        assert manifest["checkpoint_sha256"] == f"random weights, seed {SEED}"
        decides = {"evidence"} if name.startswith("mask_decoder") else set()
        assert set(manifest["differences"]) == {spec.name for spec in network.outputs} | decides


@BOTH_MODELS
def test_equal_weights_give_equal_bytes_without_paths(exported, variant, tmp_path):
    name, network = next(iter(networks(variant).items()))  # test_demo_graphs.py has all of them
    again = tmp_path / "model.onnx"
    onnx_ir.save(graph_of(build_random(variant, SEED)[name], network), again)
    content = again.read_bytes()
    assert content == (exported(variant, "fp32") / name / "1" / "model.onnx").read_bytes()
    assert str(Path(export_onnx.__file__).parent).encode() not in content
    assert b".py" not in content


@pytest.mark.parametrize(
    ("variant", "name", "output"),
    [(TINY, "text_encoder_3d", "text_features"), (TINY_2D, "text_encoder", "token_features")],
    ids=["TINY", "TINY_2D"],
)
def test_a_wrong_graph_is_not_installed(variant, name, output, tmp_path, monkeypatch):
    other = copy.deepcopy(random_networks(variant)[name])
    other.text_encoder.lang_proj.data *= 1.01
    monkeypatch.setattr(export_onnx, "graph_of", lambda _module, network: graph_of(other, network))
    with pytest.raises(ExportError, match=rf"{name}: {output} differs by 0.01 .* fp32 allows"):
        export_networks(random_networks(variant), variant, "none", tmp_path)
    assert not list(tmp_path.rglob("model.onnx"))
    assert not list(tmp_path.rglob("networks.json"))


@BOTH_MODELS
def test_a_repository_copy_carries_the_sizes_of_its_variant(variant, tmp_path):
    copied = copy_repository(REPOSITORY, tmp_path / "copy", variant)
    for name, network in networks(variant).items():
        for path in (copied / name / "config.pbtxt", copied / name / "configs" / "onnxruntime.pbtxt"):
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
