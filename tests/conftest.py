"""What tests of several rooms share."""

from functools import lru_cache

import pytest


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """exported(variant, precision) -> the model repository of tiny networks, exported once."""
    from helpers.tiny_networks import export  # imports torch, so only where it is needed

    @lru_cache
    def repository(variant, precision):
        return export(variant, precision, tmp_path_factory.mktemp(f"{variant.name}-{precision}"))

    return repository
