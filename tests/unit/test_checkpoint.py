"""Published tensor names: the rename table is total, loading is strict and names what is wrong."""

import pytest
import torch
from medimageparse.checkpoint import (
    BACKWARDS,
    IGNORED,
    RENAMES,
    CheckpointError,
    load_networks,
    published_state,
    read_checkpoint,
    rename,
    save_checkpoint,
)
from medimageparse.networks import build, build_random
from medimageparse.variants import PUBLISHED, TINY
from torch import nn

PUBLISHED_TENSORS = 1050
PUBLISHED_PARAMETERS = 371_798_778
FUSED_SELF_ATTENTION = "sem_seg_head.predictor.transformer_self_attention_layers.3.self_attn.in_proj_weight"


@pytest.fixture(scope="module")
def modules():
    return build_random(TINY, 0)


@pytest.fixture
def tensors(modules):
    return published_state(modules)


def test_published_variant_has_the_published_tensors():
    with torch.device("meta"):  # shapes without memory
        state = nn.ModuleDict(build(PUBLISHED)).state_dict()
    assert len(state) + len(IGNORED) == PUBLISHED_TENSORS
    ignored = PUBLISHED.width**2 + 1  # class_embed and logit_scale
    pixel_statistics = 2 * 3
    assert sum(tensor.numel() for tensor in state.values()) - pixel_statistics + ignored == PUBLISHED_PARAMETERS
    for name in state:
        assert rename(rename(name, BACKWARDS), RENAMES) == name


def test_names_of_the_specification():
    with torch.device("meta"):
        state = published_state(build(PUBLISHED))
    assert len(state) == PUBLISHED_TENSORS - len(IGNORED)  # no two of ours share a published name
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


def test_loads_what_it_saved(modules, tensors):
    loaded = load_networks(tensors, TINY)
    for name, tensor in nn.ModuleDict(modules).state_dict().items():
        assert torch.equal(tensor, nn.ModuleDict(loaded).state_dict()[name])


def test_ignores_what_is_listed_and_nothing_else(tensors):
    load_networks(tensors | {name: torch.zeros(()) for name in IGNORED}, TINY)
    with pytest.raises(CheckpointError, match=r"unknown tensor sem_seg_head\.predictor\.class_embed_2"):
        load_networks(tensors | {"sem_seg_head.predictor.class_embed_2": torch.zeros(())}, TINY)


def test_names_a_missing_tensor(tensors):
    del tensors[FUSED_SELF_ATTENTION]
    with pytest.raises(CheckpointError, match=rf"1 tensors .* missing, the first is {FUSED_SELF_ATTENTION}"):
        load_networks(tensors, TINY)


def test_names_a_tensor_of_another_variant(tensors):
    with pytest.raises(CheckpointError, match=r"1 tensors do not belong .*\.blocks\.1\.gamma_1"):
        load_networks(tensors | {"backbone.layers.0.blocks.1.gamma_1": torch.zeros(16)}, TINY)


def test_names_a_tensor_of_another_shape(tensors):
    tensors[FUSED_SELF_ATTENTION] = torch.zeros(96, 33)
    with pytest.raises(CheckpointError, match=rf"{FUSED_SELF_ATTENTION} has shape \(96, 33\), .* needs \(96, 32\)"):
        load_networks(tensors, TINY)


def test_reads_both_file_formats(modules, tensors, tmp_path):
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in tensors.items()}}, tmp_path / "tiny.ckpt")
    read, variant = read_checkpoint(tmp_path / "tiny.ckpt")
    assert variant is PUBLISHED  # what a .ckpt is; its shapes are compared when it is loaded
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())

    save_checkpoint(tmp_path / "tiny.safetensors", modules, TINY)
    read, variant = read_checkpoint(tmp_path / "tiny.safetensors")
    assert variant is TINY
    assert all(torch.equal(read[name], tensor.half().float()) for name, tensor in tensors.items())


def test_says_what_a_torch_file_lacks(tmp_path):
    torch.save({"model": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="no key `state_dict`"):
        read_checkpoint(tmp_path / "other.ckpt")
