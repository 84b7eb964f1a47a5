"""What a comparison catches: one wrong layer, epsilon, axis or bias of any network, in fp32 and in fp16. Demo's sizes.

The error is planted into the module, and the graph is right: which of the two is wrong makes no difference.
"""

import copy
from functools import lru_cache

import pytest
import torch
from helpers.tiny_networks import BOTH_PRECISIONS
from medimageparse.comparison import example_inputs
from medimageparse.errors import ExportError
from medimageparse.export_onnx import compare, export_networks, run_module
from medimageparse.networks import build_random
from medimageparse.served_tensors import networks
from medimageparse.variants import DEMO, DEMO_2D

pytestmark = pytest.mark.slow

SEEDS = {"fp32": 1, "fp16": 2}  # of random weights; benchmarks/export_seeds.py has more
VARIANT_OF = {name: variant for variant in (DEMO, DEMO_2D) for name in networks(variant)}


@lru_cache
def right_modules(variant, precision):
    return build_random(variant, SEEDS[precision])


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """graphs(variant, precision) -> a repository of exported graphs, which the export itself compares."""

    @lru_cache
    def repository(variant, precision):
        folder = tmp_path_factory.mktemp(f"{variant.name}-{precision}")
        export_networks(right_modules(variant, precision), variant, "random weights", folder, precision)
        return folder

    return repository


@lru_cache
def inputs_of(variant, precision):
    modules = right_modules(variant, precision)
    return example_inputs(variant, 2, 4, 5, run=lambda name, arrays: run_module(modules[name], arrays))


def one_percent(weight):
    return weight * 1.01


def dropped(bias):
    return torch.zeros_like(bias)


def swapped(weight):
    return weight.transpose(-1, -2)


def swapped_grid(positions):
    side = round(len(positions) ** 0.5)
    return positions.unflatten(0, (side, side)).transpose(0, 1).flatten(0, 1)


TEXT = [
    ("text_encoder.resblocks.1.mlp.c_proj.weight", one_percent),
    ("text_encoder.token_embedding.weight", one_percent),
    ("text_encoder.resblocks.0.attn.out_proj.weight", swapped),
    ("text_encoder.resblocks.1.ln_2.bias", dropped),
    ("text_encoder.resblocks.1.attn.in_proj_bias", dropped),
]
IMAGE = [
    ("backbone.stages.0.blocks.0.mlp.fc1.weight", one_percent),
    ("backbone.stages.2.blocks.1.modulation.h.weight", one_percent),
    ("pixel_decoder.encoder.0.self_attn.in_proj_weight", one_percent),
    ("backbone.stages.3.blocks.0.modulation.focal_layers.1.0.weight", swapped),
    ("pixel_decoder.outputs.1.conv.weight", swapped),
    ("pixel_decoder.positions", swapped_grid),
    ("backbone.stages.2.blocks.0.modulation.f.bias", dropped),
    ("pixel_decoder.encoder.1.linear1.bias", dropped),
]
MASKS = [
    ("mask_decoder.layers.0.self_attention.attention.in_proj_weight", one_percent),
    ("mask_decoder.layers.2.ffn.linear2.weight", one_percent),
    ("mask_decoder.mask_features.weight", one_percent),
    ("mask_decoder.level_embed.weight", one_percent),
    ("mask_decoder.mask_features.weight", swapped),
    ("mask_decoder.positions_0", swapped_grid),
    ("mask_decoder.layers.0.ffn.linear1.bias", dropped),
    ("mask_decoder.mask_embed.layers.1.bias", dropped),
]
PLANTED = {"text": TEXT, "image": IMAGE, "mask": MASKS}
# a norm of each kind of network, and an epsilon other than its own
EPSILONS = {
    "text": [("text_encoder.resblocks.0.ln_1", 1e-5)],
    "image": [("backbone.stages.1.blocks.0.norm1", 1e-3), ("pixel_decoder.laterals.1.norm", 1e-3)],
    "mask": [("mask_decoder.decoder_norm", 1e-3)],
}


def of_every_network(cases):
    """Cases by kind of network -> one case for each network of that kind."""
    return [
        pytest.param(name, part, change, id=f"{name}-{part}-{getattr(change, '__name__', change)}")
        for name in VARIANT_OF
        for part, change in cases[name.partition("_")[0]]
    ]


@pytest.fixture
def caught(graphs):
    def check(name, precision, plant):
        """Plants an error into a copy of the network; the comparison with its graph must fail."""
        variant = VARIANT_OF[name]
        module = copy.deepcopy(right_modules(variant, precision)[name])
        plant(module)
        path = graphs(variant, precision) / name / "1" / "model.onnx"
        with pytest.raises(ExportError, match=rf"{name}: \w+ differs"):
            compare(module, networks(variant)[name], path, [inputs_of(variant, precision)[name]], precision)

    return check


@BOTH_PRECISIONS
@pytest.mark.parametrize(("name", "part", "change"), of_every_network(PLANTED))
def test_an_error_in_one_tensor_is_caught(caught, name, part, change, precision):
    def plant(module):
        tensor = dict((*module.named_parameters(), *module.named_buffers()))[part]
        tensor.data = change(tensor.data).contiguous()

    caught(name, precision, plant)


@BOTH_PRECISIONS
@pytest.mark.parametrize(("name", "part", "epsilon"), of_every_network(EPSILONS))
def test_a_wrong_epsilon_is_caught(caught, name, part, epsilon, precision):
    def plant(module):
        norm = module.get_submodule(part)
        assert norm.eps < epsilon
        norm.eps = epsilon

    caught(name, precision, plant)


@BOTH_PRECISIONS
@pytest.mark.parametrize("name", VARIANT_OF)
def test_a_right_network_passes(graphs, name, precision):
    variant = VARIANT_OF[name]
    path = graphs(variant, precision) / name / "1" / "model.onnx"
    module, inputs = right_modules(variant, precision)[name], inputs_of(variant, precision)[name]
    reports = compare(module, networks(variant)[name], path, [inputs], precision)
    assert set(reports) == ({"differences", "differences_widened"} if precision == "fp16" else {"differences"})
