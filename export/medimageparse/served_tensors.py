"""The table of served networks: names, dtypes and shapes of their tensors. Without torch: engines build without it."""

from dataclasses import dataclass

import numpy as np
from medimageparse_contract.categories import CLASSES

from medimageparse.variants import MAX_GROUPS, MAX_PROMPTS, Variant


def mask_side(variant: Variant) -> int:
    """In-plane side of the finest features and of mask logits, at stride 4."""
    return -(-variant.image_size // 4)


def grids(variant: Variant) -> tuple[int, int, int]:
    """In-plane sides of the memories at strides 32, 16 and 8."""
    return tuple(-(-variant.image_size // stride) for stride in (32, 16, 8))


@dataclass(frozen=True)
class Dimension:
    """A dynamic dimension and the sizes that an engine serves: least, usual, most."""

    name: str
    smallest: int
    usual: int
    largest: int


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a served tensor; a shape entry is a number or a dynamic dimension."""

    name: str
    dtype: type[np.generic]
    shape: tuple[int | Dimension, ...]


@dataclass(frozen=True)
class Network:
    """One exported graph: its folder in model_repository and its tensors."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def networks(variant: Variant) -> dict[str, Network]:
    """The table of served networks for one variant, keyed by model name, in the order of the data."""
    table = volume_networks(variant) if variant.model == "medimageparse_3d" else image_networks(variant)
    return {network.name: network for network in table}


PROMPTS = Dimension("prompts", 1, 15, MAX_PROMPTS)


def tokens_of(variant: Variant) -> tuple[TensorSpec, TensorSpec]:
    """What tokenize_prompts makes for the text encoders."""
    tokens = Dimension("tokens", 2, 16, variant.context_length)
    return TensorSpec("input_ids", np.int64, (PROMPTS, tokens)), TensorSpec(
        "attention_mask", np.int64, (PROMPTS, tokens)
    )


def image_features(variant: Variant, images: int | Dimension) -> tuple[TensorSpec, ...]:
    """What the image encoders make for the mask decoders."""
    side, width = mask_side(variant), variant.width
    memories = zip((32, 16, 8), grids(variant), strict=True)
    return (
        TensorSpec("features_stride4", np.float32, (images, width, side, side)),
        *(TensorSpec(f"memory_stride{stride}", np.float32, (images, width, grid, grid)) for stride, grid in memories),
    )


def volume_networks(variant: Variant) -> tuple[Network, ...]:
    """The networks of medimageparse_3d."""
    size, side, width = variant.image_size, mask_side(variant), variant.width
    slices = Dimension("slices", 1, 8, 16)
    halo_slices = Dimension("slices_and_halo", 3, 10, 18)
    digits = Dimension("digits", 1, 1, 8)  # to base 256: four reach as far as values may, and as many below zero
    ids, mask = tokens_of(variant)
    text_features = TensorSpec("text_features", np.float32, (*ids.shape, width))
    features = image_features(variant, slices)
    return (
        Network("text_encoder_3d", (ids, mask), (text_features,)),
        Network(
            "image_encoder_3d",
            (
                TensorSpec("window", np.uint8, (digits, halo_slices, size, size)),
                TensorSpec("digit_values", np.float32, (digits,)),
            ),
            features,
        ),
        Network(
            "mask_decoder_3d",
            (*features, text_features, TensorSpec("noise_fields", np.int64, (PROMPTS,))),
            (
                TensorSpec("label_slices", np.uint8, (slices, size, size)),
                TensorSpec("scores", np.float32, (slices, PROMPTS)),
                TensorSpec("mask_logits", np.float32, (slices, PROMPTS, side, side)),
                TensorSpec("edge_logits", np.float32, (slices, PROMPTS, side, side)),
                TensorSpec("lost_to", np.uint8, (slices, PROMPTS)),
            ),
        ),
    )


def image_networks(variant: Variant) -> tuple[Network, ...]:
    """The networks of medimageparse."""
    size, side, width = variant.image_size, mask_side(variant), variant.width
    groups = Dimension("groups", 1, 1, MAX_GROUPS)
    prompts_per_group = Dimension("prompts_per_group", 1, 4, MAX_PROMPTS)
    ids, mask = tokens_of(variant)
    token_features = TensorSpec("token_features", np.float32, (*ids.shape, width))
    prompt_features = TensorSpec("prompt_features", np.float32, (PROMPTS, width))
    features = image_features(variant, 1)
    prompt_groups = TensorSpec("prompt_groups", np.int64, (groups, prompts_per_group))
    return (
        Network("text_encoder", (ids, mask), (token_features, prompt_features)),
        Network("image_encoder", (TensorSpec("pixels", np.uint8, (1, size, size, 3)),), features),
        Network(
            "mask_decoder",
            (*features, token_features, mask, prompt_features, prompt_groups),
            (
                TensorSpec("mask_logits", np.float32, (PROMPTS, side, side)),
                TensorSpec("similarities", np.float32, (PROMPTS,)),
                TensorSpec("matched_queries", np.int64, (PROMPTS,)),
                TensorSpec("category_logits", np.float32, (PROMPTS, len(CLASSES))),
            ),
        ),
    )
