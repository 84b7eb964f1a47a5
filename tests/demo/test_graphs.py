"""The committed demos: their graphs are what the exporter makes of their checkpoints, and all of it stays small."""

import json
from functools import lru_cache

import numpy as np
import onnx
import pytest
from medimageparse.__main__ import main
from medimageparse.served_tensors import networks
from medimageparse.variants import DEMO, DEMO_2D
from medimageparse_contract.hashing import sha256
from medimageparse_demo.repository import WEIGHTS, WEIGHTS_2D
from onnx import numpy_helper

pytestmark = pytest.mark.slow

CHECKPOINTS = {
    DEMO: WEIGHTS / "medimageparse_demo.safetensors",
    DEMO_2D: WEIGHTS_2D / "medimageparse_demo_2d.safetensors",
}
MEGABYTE = 1_000_000
BOTH_DEMOS = pytest.mark.parametrize("variant", CHECKPOINTS, ids=lambda variant: variant.name)


def served(repository, variant):
    return json.loads((repository / variant.model / "1" / "networks.json").read_text())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A fresh export of a demo's checkpoint."""

    @lru_cache
    def repository(variant):
        folder = tmp_path_factory.mktemp(variant.name)
        assert main(["export", "--checkpoint", str(CHECKPOINTS[variant]), "--repository", str(folder)]) == 0
        return folder

    return repository


@pytest.mark.parametrize(
    ("variant", "network"),
    [pytest.param(variant, network, id=network) for variant in CHECKPOINTS for network in networks(variant)],
)
def test_a_fresh_export_makes_the_committed_graph(exported, variant, network):
    """But for the last bits of constants that are multiplied out: each kind of processor rounds its own way."""
    weights = CHECKPOINTS[variant].parent
    committed = weights / network / "1" / "model.onnx"
    assert_equal_graphs(exported(variant) / network / "1" / "model.onnx", committed)
    assert served(weights, variant)["graphs"][network] == sha256(committed)
    assert json.loads((weights / network / "1" / "manifest.json").read_text())["graph_sha256"] == sha256(committed)


def assert_equal_graphs(found, expected):
    found, expected = onnx.load(found), onnx.load(expected)
    assert len(found.graph.initializer) == len(expected.graph.initializer)
    for constant, other in zip(found.graph.initializer, expected.graph.initializer, strict=True):
        assert (constant.name, constant.data_type, constant.dims) == (other.name, other.data_type, other.dims)
        values, others = numpy_helper.to_array(constant), numpy_helper.to_array(other)
        largest = float(np.abs(others).max(initial=0)) if others.dtype.kind == "f" else 0
        np.testing.assert_allclose(values, others, rtol=0, atol=1e-6 * largest)
        constant.CopyFrom(other)
    assert found == expected


@BOTH_DEMOS
def test_the_manifest_names_the_committed_checkpoint(exported, variant):
    committed = served(CHECKPOINTS[variant].parent, variant)
    assert committed["checkpoint_sha256"] == sha256(CHECKPOINTS[variant])
    assert committed["variant"] == variant.name
    assert served(exported(variant), variant) | {"graphs": None} == committed | {"graphs": None}


@BOTH_DEMOS
def test_the_demo_is_small(variant):
    checkpoint = CHECKPOINTS[variant]
    assert checkpoint.stat().st_size <= 12 * MEGABYTE
    files = [path for path in checkpoint.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 30 * MEGABYTE
