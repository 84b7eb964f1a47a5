"""The noise of the 3D mask decoder: which field a prompt is decoded with, and that the first one stays what it was."""

import pytest
import torch
from helpers.tiny_networks import random_networks
from medimageparse.networks_3d import NOISE_SEED
from medimageparse.served_tensors import grids
from medimageparse.variants import TINY
from medimageparse_contract.options import MAX_DRAWS


@pytest.fixture(scope="module")
def decoder():
    return random_networks(TINY)["mask_decoder_3d"].eval()


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(1)
    sides = (TINY.image_size // 4, *grids(TINY))
    return [torch.randn(2, TINY.width, side, side, generator=generator) for side in sides]


def test_the_first_field_is_the_noise_of_one_draw(decoder):
    generator = torch.Generator().manual_seed(NOISE_SEED)
    for layer, noise in enumerate(decoder.noise_of(torch.zeros(1, dtype=torch.int64))):
        shape = (TINY.n_heads, 1, TINY.n_queries, grids(TINY)[layer % 3] ** 2)
        assert torch.equal(noise, torch.rand(shape, generator=generator))


def test_no_two_fields_have_anything_in_common(decoder):
    fields = torch.cat([noise.movedim(1, 0).flatten(1) for noise in decoder.noise_of(torch.arange(MAX_DRAWS))], 1)
    correlation = torch.corrcoef(fields) - torch.eye(MAX_DRAWS)
    assert correlation.abs().max() < 6 / fields.shape[1] ** 0.5


@torch.no_grad()
def test_a_prompt_is_decoded_with_its_field_whatever_the_others_have(decoder, features):
    text = torch.randn(3, 5, TINY.width, generator=torch.Generator().manual_seed(2))
    fields = [0, 3, 15]
    _, scores, masks, edges, _ = decoder(*features, text.tile(3, 1, 1), torch.tensor(fields).repeat_interleave(3))
    for place, field in enumerate(fields):
        rows = slice(3 * place, 3 * place + 3)
        _, *alone, _ = decoder(*features, text, torch.full((3,), field))
        for found, expected in zip((scores, masks, edges), alone, strict=True):
            assert torch.allclose(found[:, rows], expected, atol=1e-4)
    assert not torch.allclose(masks[:, :3], masks[:, 3:6], atol=1e-2)
