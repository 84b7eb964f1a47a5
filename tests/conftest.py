"""What tests of several rooms share."""

import fcntl
import gc
import os
from functools import lru_cache
from pathlib import Path

import pytest

pytest_plugins = ["helpers.skips", "pytester"]

if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: their torch and numpy have one each
    os.environ.setdefault("OMP_NUM_THREADS", "1")


gc.disable()  # until all tests are collected: what they import is no garbage


def pytest_collection_modifyitems(items):
    """Long files first: workers that take a file at a time then end together."""
    servers = Path(__file__).parent / "server"
    items.sort(key=lambda item: "slow" not in item.keywords and servers not in item.path.parents)


def pytest_collection_finish():
    """Some 9,000 tests live to the end: without this, Python looks through all of them again and again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """exported(variant, precision) -> the model repository of tiny networks, exported once for all workers."""
    from helpers.tiny_networks import export  # imports torch, so only where it is needed

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    @lru_cache
    def repository(variant, precision):
        path = folder / f"exported-{variant.name}-{precision}"
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                export(variant, precision, path.with_suffix(".partial")).rename(path)
        return path

    return repository


def pytest_make_parametrize_id(config, val, argname):
    """Bytes are no names of tests: gzip writes the time into them, and two workers would see different tests."""
    return argname if isinstance(val, bytes) else None
