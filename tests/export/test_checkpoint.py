"""Published tensor names: the rename table is total, loading is strict and names what is wrong."""

from functools import cache

import pytest
import torch
from medimageparse.checkpoint import (
    BACKWARDS,
    IGNORED,
    RENAMES,
    CheckpointError,
    is_ignored,
    load_networks,
    published_state,
    rename,
)
from medimageparse.networks import build, build_random
from medimageparse.variants import PUBLISHED, PUBLISHED_2D, TINY, TINY_2D
from torch import nn

PUBLISHED_TENSORS = {PUBLISHED: 1050, PUBLISHED_2D: 932}  # of 2D without the second text encoder and the loss
PUBLISHED_PARAMETERS = {PUBLISHED: 371_798_778, PUBLISHED_2D: 341_181_177}
IGNORED_TENSORS = {
    PUBLISHED: {"sem_seg_head.predictor.class_embed": 512**2, "sem_seg_head.predictor.language_encoder.logit_scale": 1},
    PUBLISHED_2D: {
        "dilation_kernel": 0,  # 9 numbers, but no parameter
        "sem_seg_head.predictor.pn_indicator.weight": 2 * 512,
        "sem_seg_head.predictor.mask_sptial_embed.0": 512**2,
        "sem_seg_head.predictor.mask_sptial_embed.1": 512**2,
        "sem_seg_head.predictor.mask_sptial_embed.2": 512**2,
        "sem_seg_head.predictor.spatial_embed.weight": 32 * 512,
        "sem_seg_head.predictor.spatial_featured.weight": 32 * 512,
    },
}
FUSED_SELF_ATTENTION = "sem_seg_head.predictor.transformer_self_attention_layers.3.self_attn.in_proj_weight"


@cache
def shapes_of(variant):
    """Its networks without memory for the weights."""
    with torch.device("meta"):
        return build(variant)


@pytest.fixture(scope="module", params=[TINY, TINY_2D], ids=lambda variant: variant.name)
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def modules(variant):
    return build_random(variant, 0)


@pytest.fixture
def tensors(modules, variant):
    return published_state(modules, variant.model)


@pytest.mark.parametrize("variant", [PUBLISHED, PUBLISHED_2D], ids=lambda variant: variant.name)
def test_published_variant_has_the_published_tensors(variant):
    modules = shapes_of(variant)
    state = published_state(modules, variant.model)
    ignored = IGNORED_TENSORS[variant]
    assert len(state) + len(ignored) == PUBLISHED_TENSORS[variant]  # no two of ours share a published name
    parameters = sum(p.numel() for module in modules.values() for p in module.parameters())
    assert parameters + sum(ignored.values()) == PUBLISHED_PARAMETERS[variant]
    assert all(is_ignored(name, variant.model) for name in ignored)
    assert not any(is_ignored(name, variant.model) for name in state)
    for name in state:
        assert rename(rename(name, RENAMES[variant.model]), BACKWARDS[variant.model]) == name


def test_names_of_the_specification():
    state = published_state(shapes_of(PUBLISHED), PUBLISHED.model)
    shapes = {
        "pixel_mean": (1, 3, 1, 1),
        "backbone.patch_embed.proj.weight": (192, 3, 7, 7),
        "backbone.layers.2.blocks.17.modulation.f.weight": (2 * 768 + 5, 768),
        "backbone.layers.1.blocks.0.modulation.focal_layers.3.0.weight": (384, 1, 9, 9),
        "backbone.layers.2.downsample.proj.weight": (1536, 768, 3, 3),
        "backbone.norm3.weight": (1536,),
        "sem_seg_head.pixel_decoder.adapter_1.weight": (512, 192, 1, 1),
        "sem_seg_head.pixel_decoder.layer_4.norm.bias": (512,),
        "sem_seg_head.pixel_decoder.input_proj.weight": (512, 1536, 1, 1),
        "sem_seg_head.pixel_decoder.transformer.encoder.layers.5.linear1.weight": (2048, 512),
        "sem_seg_head.predictor.language_encoder.lang_proj": (512, 512),
        "sem_seg_head.predictor.language_encoder.encoder_transformer.token_embedding.weight": (49408, 512),
        "sem_seg_head.predictor.language_encoder.encoder_transformer.resblocks.11.mlp.c_fc.weight": (2048, 512),
        FUSED_SELF_ATTENTION: (1536, 512),
        "sem_seg_head.predictor.classifier_ffn_layers.8.norm.weight": (512,),
        "sem_seg_head.predictor.query_feat_.weight": (16, 512),
        "sem_seg_head.predictor.classifier.weight": (1, 512),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_loads_what_it_saved(modules, tensors, variant):
    loaded = load_networks(tensors, variant)
    for name, tensor in nn.ModuleDict(modules).state_dict().items():
        assert torch.equal(tensor, nn.ModuleDict(loaded).state_dict()[name])


def test_ignores_what_is_listed_and_nothing_else(tensors, variant):
    below = {f"{entry}x.weight" if entry.endswith(".") else entry for entry in IGNORED[variant.model]}
    load_networks(tensors | {name: torch.zeros(()) for name in below}, variant)
    with pytest.raises(CheckpointError, match=r"unknown tensor sem_seg_head\.predictor\.spatial_embedding"):
        load_networks(tensors | {"sem_seg_head.predictor.spatial_embedding": torch.zeros(())}, variant)


def test_names_a_missing_tensor(tensors, variant):
    del tensors[FUSED_SELF_ATTENTION]
    with pytest.raises(CheckpointError, match=rf"1 tensors .* missing, the first is {FUSED_SELF_ATTENTION}"):
        load_networks(tensors, variant)


def test_names_a_tensor_of_another_variant(tensors, variant):
    with pytest.raises(CheckpointError, match=r"1 tensors do not belong .*\.blocks\.1\.gamma_1"):
        load_networks(tensors | {"backbone.layers.0.blocks.1.gamma_1": torch.zeros(16)}, variant)


def test_names_a_tensor_of_another_shape(tensors, variant):
    tensors[FUSED_SELF_ATTENTION] = torch.zeros(96, 33)
    with pytest.raises(CheckpointError, match=rf"{FUSED_SELF_ATTENTION} has shape \(96, 33\), .* needs \(96, 32\)"):
        load_networks(tensors, variant)
