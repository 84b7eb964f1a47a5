"""What tests of several rooms share."""

from functools import lru_cache

import pytest

pytest_plugins = ["helpers.skips", "pytester"]


def pytest_collection_modifyitems(items):
    """With several workers (make test), the tests of a file run in one, and so do those that share a group."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name + item.path.parent.name))


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """exported(variant, precision) -> the model repository of tiny networks, exported once."""
    from helpers.tiny_networks import export  # imports torch, so only where it is needed

    @lru_cache
    def repository(variant, precision):
        return export(variant, precision, tmp_path_factory.mktemp(f"{variant.name}-{precision}"))

    return repository
