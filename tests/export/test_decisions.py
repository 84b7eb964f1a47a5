"""Networks are compared on equal decisions: chance is excused. What is not: test_planted_errors.py."""

import copy

import onnx_ir
import onnxruntime
import pytest
import torch
from helpers.tiny_networks import BOTH_MODELS, random_networks
from medimageparse.build_engine import compare_engine, named, of_session
from medimageparse.comparison import check, differences, example_inputs
from medimageparse.decisions import decisions_of, telling
from medimageparse.errors import ExportError
from medimageparse.export_onnx import graph_of, measure, run_module
from medimageparse.served_tensors import networks
from medimageparse.variants import TINY, TINY_2D
from medimageparse.watched_graph import content, imposed, watched, widened

pytestmark = pytest.mark.slow


def parts(variant, name):
    """A network, its table and the inputs of one example."""
    modules = random_networks(variant)
    inputs = example_inputs(variant, 2, 4, 5, run=lambda part, arrays: run_module(modules[part], arrays))
    return modules[name], networks(variant)[name], inputs[name]


@pytest.fixture
def graph(exported):
    """The exported graph of a network, in memory."""

    def load(variant, name, precision) -> onnx_ir.Model:
        path = exported(variant, precision) / name / "1" / "model.onnx"
        return widened(path) if precision == "fp16" else onnx_ir.load(path)

    return load


def edit(model: onnx_ir.Model, name: str, change) -> None:
    weights = model.graph.initializers[name]
    array = weights.const_value.numpy()
    weights.const_value = onnx_ir.tensor(change(array).astype(array.dtype), name=name)


def dropped(array):
    return array * 0


def within_rounding(variant):
    """A mask decoder whose every weight is off by rounding, so much that it decides otherwise somewhere."""
    *_, name = networks(variant)
    module, network, inputs = parts(variant, name)
    random = torch.Generator().manual_seed(0)
    other = copy.deepcopy(module)
    for parameter in other.parameters():
        parameter.data *= 1 + 2e-6 * torch.randn(parameter.shape, generator=random)
    return module, other, network, inputs


def nearest_draw(module, inputs):
    """Noise of the third layer that is just what the first slice's first prompt compares with it."""
    with telling(module):
        *_, missed = run_module(module, inputs)[:10]  # behind five outputs, two decisions before it
    missed = torch.from_numpy(missed)  # [S, P, Q, N]
    noise = module.noise_2.clone()  # [heads, draws, Q, N]
    noise[:, inputs[-1][0]] = missed[0, 0]
    return noise


def test_a_draw_within_rounding_of_its_threshold_is_excused(tmp_path):
    module, other, network, inputs = within_rounding(TINY)
    module = copy.deepcopy(module)
    module.noise_2 = other.noise_2 = nearest_draw(module, inputs)
    names = [spec.name for spec in network.outputs]
    free = differences(*(dict(zip(names, run_module(m, inputs), strict=True)) for m in (module, other)))
    with pytest.raises(ExportError, match="differs"):
        check(free, network.name, "fp32")  # by chance
    path = tmp_path / "model.onnx"
    onnx_ir.save(graph_of(other, network), path)
    check(measure(module, network, watched(onnx_ir.load(path)), [inputs]), network.name, "fp32")


def test_a_decision_that_does_not_follow_from_its_evidence_is_caught(graph):
    module, network, inputs = parts(TINY_2D, "mask_decoder")
    model = graph(TINY_2D, "mask_decoder", "fp32")
    (rule,) = [node for node in model.graph if node.outputs[0].name == "decision_1"]
    rule.op_type = {"Less": "Greater"}[rule.op_type]
    with pytest.raises(ExportError, match="decision 1 does not follow"):
        measure(module, network, watched(model), [inputs])


def session(model: onnx_ir.Model):
    return of_session(onnxruntime.InferenceSession(content(model)))


@BOTH_MODELS
def test_an_engine_is_compared_on_its_own_decisions(graph, variant):
    """ONNX Runtime stands in for the engines: it cannot show that TensorRT computes the same."""
    *_, name = networks(variant)
    _, network, arrays = parts(variant, name)
    inputs = named(network, arrays)
    served, telling_one, reference = (
        session(change(graph(variant, name, "fp32"))) for change in (lambda model: model, watched, imposed)
    )
    report = compare_engine(network, [inputs], served, telling_one, reference, "fp32")
    assert report["evidence"]["margin"] < 1e-5

    def changed(weights, change, shown=lambda model: model):
        model = graph(variant, name, "fp32")
        edit(model, weights, change)
        return session(shown(model))

    wrong = "mask_decoder.layers.0.ffn.linear1.bias", dropped
    with pytest.raises(ExportError, match="fp32 allows"):
        compare_engine(network, [inputs], changed(*wrong), changed(*wrong, watched), reference, "fp32")
    other = changed("mask_decoder.layers.0.ffn.linear1.bias", lambda bias: bias + 9)
    with pytest.raises(ExportError, match="as served allows"):
        compare_engine(network, [inputs], other, telling_one, reference, "fp32")


def test_networks_that_do_not_decide_have_nothing_to_impose():
    for variant, name in ((TINY, "image_encoder_3d"), (TINY_2D, "text_encoder")):
        assert decisions_of(random_networks(variant)[name]) == []
