"""The committed demo: its graphs are what the exporter makes of its checkpoint, and all of it stays small."""

import hashlib
import json

import pytest
from medimageparse.__main__ import main
from medimageparse_demo.repository import WEIGHTS

CHECKPOINT = WEIGHTS / "medimageparse_demo.safetensors"
NETWORKS = ("text_encoder_3d", "image_encoder_3d", "mask_decoder_3d")
MEGABYTE = 1_000_000


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    assert main(["export", "--checkpoint", str(CHECKPOINT), "--repository", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def served():
    return json.loads((WEIGHTS / "segment_volume" / "1" / "networks.json").read_text())


@pytest.mark.parametrize("network", NETWORKS)
def test_a_fresh_export_makes_the_committed_graph(exported, served, network):
    committed = sha256(WEIGHTS / network / "1" / "model.onnx")
    assert sha256(exported / network / "1" / "model.onnx") == committed
    assert served["graphs"][network] == committed
    assert json.loads((WEIGHTS / network / "1" / "manifest.json").read_text())["graph_sha256"] == committed


def test_the_manifest_names_the_committed_checkpoint(exported, served):
    assert served["checkpoint_sha256"] == sha256(CHECKPOINT)
    assert served["variant"] == "DEMO"
    fresh = json.loads((exported / "segment_volume" / "1" / "networks.json").read_text())
    assert fresh == served


def test_the_demo_is_small():
    assert CHECKPOINT.stat().st_size <= 15 * MEGABYTE
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 40 * MEGABYTE
