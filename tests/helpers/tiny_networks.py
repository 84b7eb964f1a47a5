"""TINY networks of both public models with random weights, made once."""

from functools import lru_cache
from pathlib import Path

import pytest
from medimageparse.export_onnx import export_networks
from medimageparse.networks import build_random
from medimageparse.served_tensors import networks
from medimageparse.variants import TINY, TINY_2D, Variant
from torch import nn

SEED = 4
BOTH_MODELS = pytest.mark.parametrize("variant", [TINY, TINY_2D], ids=lambda variant: variant.name)
EVERY_NETWORK = pytest.mark.parametrize(
    ("variant", "name"),
    [pytest.param(variant, name, id=name) for variant in (TINY, TINY_2D) for name in networks(variant)],
)
BOTH_PRECISIONS = pytest.mark.parametrize("precision", ["fp32", "fp16"])


@lru_cache
def random_networks(variant: Variant) -> dict[str, nn.Module]:
    return build_random(variant, SEED)


def export(variant: Variant, precision: str, folder: Path) -> Path:
    """Makes a folder the model repository of a variant, with nothing in it but what export writes."""
    export_networks(random_networks(variant), variant, f"random weights, seed {SEED}", folder, precision)
    return folder
