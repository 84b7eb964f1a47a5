"""TINY networks with random weights, exported once per precision."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
from medimageparse.export_onnx import export_networks
from medimageparse.networks import build_random
from medimageparse.variants import TINY

SEED = 1


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The model repository of a precision, "fp32" or "fp16", with nothing in it but what export writes."""

    @lru_cache
    def repository(precision: str) -> Path:
        folder = tmp_path_factory.mktemp(precision)
        export_networks(build_random(TINY, SEED), TINY, f"random weights, seed {SEED}", folder, precision)
        return folder

    return repository
