"""The table of served networks: names, dtypes and shapes of their tensors. Without torch: engines build without it."""

from dataclasses import dataclass

import numpy as np

from medimageparse.variants import MAX_PROMPTS, Variant


def mask_side(variant: Variant) -> int:
    """In-plane side of mask features and mask logits, at stride 4."""
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
    size, side, width = variant.image_size, mask_side(variant), variant.width
    coarse, middle, fine = grids(variant)
    slices = Dimension("slices", 1, 8, 16)
    halo_slices = Dimension("slices_and_halo", 3, 10, 18)
    prompts = Dimension("prompts", 1, 15, MAX_PROMPTS)
    tokens = Dimension("tokens", 2, 16, variant.context_length)
    text_features = TensorSpec("text_features", np.float32, (prompts, tokens, width))
    features = (
        TensorSpec("mask_features", np.float32, (slices, width, side, side)),
        TensorSpec("memory_stride32", np.float32, (slices, width, coarse, coarse)),
        TensorSpec("memory_stride16", np.float32, (slices, width, middle, middle)),
        TensorSpec("memory_stride8", np.float32, (slices, width, fine, fine)),
    )
    table = (
        Network(
            "text_encoder_3d",
            (
                TensorSpec("input_ids", np.int64, (prompts, tokens)),
                TensorSpec("attention_mask", np.int64, (prompts, tokens)),
            ),
            (text_features,),
        ),
        Network(
            "image_encoder_3d",
            (TensorSpec("window", np.float32, (halo_slices, size, size)),),
            features,
        ),
        Network(
            "mask_decoder_3d",
            (*features, text_features),
            (
                TensorSpec("label_slices", np.uint8, (slices, size, size)),
                TensorSpec("scores", np.float32, (slices, prompts)),
                TensorSpec("mask_logits", np.float32, (slices, prompts, side, side)),
                TensorSpec("edge_logits", np.float32, (slices, prompts, side, side)),
            ),
        ),
    )
    return {network.name: network for network in table}
