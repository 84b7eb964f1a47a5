"""Built files, manifests and versions: what does not belong together is not served."""

import json
import os

import pytest
from helpers.places import ROOT
from medimageparse_contract.hashing import sha256
from medimageparse_contract.version import VERSION
from medimageparse_serving.launch import manifests
from medimageparse_serving.launch.launch_errors import ServeError


@pytest.fixture
def network(tmp_path):
    """A repository with one network: its version folder."""
    folder = tmp_path / "encoder" / "1"
    (tmp_path / "encoder" / "configs").mkdir(parents=True)
    folder.mkdir()
    (tmp_path / "encoder" / "config.pbtxt").write_text('platform: "tensorrt_plan"')
    (folder / "model.onnx").write_bytes(b"a graph")
    (folder / "model.plan").write_bytes(b"an engine")
    manifest = {
        "graph_sha256": sha256(folder / "model.onnx"),
        "engine": {"plan_sha256": sha256(folder / "model.plan"), "gpu": "NVIDIA H100, 9.0, 590.1"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def check(network, runtime):
    manifests.check_manifests(network.parents[1], ["encoder"], runtime)


def nvidia_smi(folder, monkeypatch, answer):
    """Puts one on PATH that prints what it is asked for and nothing else."""
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\ntest \"$1\" = --query-gpu=compute_cap && printf '{answer}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize("damage", [b"a gra", b"another graph"])
def test_a_damaged_graph_is_refused(network, damage):
    check(network, "cpu")
    (network / "model.onnx").write_bytes(damage)
    with pytest.raises(ServeError, match="^the model.onnx of encoder is not the one in its manifest: .*make export"):
        check(network, "onnxruntime")


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_damaged_manifest_is_refused(network, text):
    (network / "manifest.json").unlink()
    if text:
        (network / "manifest.json").write_text(text)
    with pytest.raises(ServeError, match="^the manifest.json of encoder is missing or damaged"):
        check(network, "cpu")


def test_an_engine_needs_its_gpu(network, tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, r"9.0\n9.0\n")
    check(network, "tensorrt")
    nvidia_smi(tmp_path, monkeypatch, r"9.0\n8.6\n")
    sentence = (
        r"^the engine of encoder was built on NVIDIA H100 \(compute capability 9.0\), .* has 8.6, 9.0; .*make engines"
    )
    with pytest.raises(ServeError, match=sentence):
        check(network, "tensorrt")
    nvidia_smi(tmp_path, monkeypatch, "")
    with pytest.raises(ServeError, match="nvidia-smi finds none here"):
        check(network, "tensorrt")


def test_a_damaged_engine_is_refused(network):
    (network / "model.plan").write_bytes(b"an eng")
    with pytest.raises(ServeError, match="^the model.plan of encoder is not the one in its manifest: .*make engines"):
        check(network, "tensorrt")
    manifest = json.loads((network / "manifest.json").read_text())
    del manifest["engine"]
    (network / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ServeError, match="^the manifest of encoder knows no engine"):
        check(network, "tensorrt")


def test_a_step_needs_its_code(tmp_path):
    (tmp_path / "step" / "1").mkdir(parents=True)
    (tmp_path / "step" / "config.pbtxt").write_text('backend: "python"')
    with pytest.raises(ServeError, match=r"^the model\.py of step is missing"):
        manifests.check_manifests(tmp_path, ["step"], "cpu")
    (tmp_path / "step" / "1" / "model.py").touch()
    manifests.check_manifests(tmp_path, ["step"], "cpu")


def test_a_repository_of_another_version_is_refused_with_what_to_do(tmp_path):
    """As when an old one is mounted into a new image."""
    public = tmp_path / "medimageparse_3d"
    (public / "1").mkdir(parents=True)
    (public / "config.pbtxt").write_text('backend: "python"')
    (public / "1" / "model.py").touch()
    networks = public / "1" / "networks.json"
    for content, words in (
        ({"version": "0.0.9"}, f"has medimageparse_3d of version 0.0.9, and this is version {VERSION}: .*make export"),
        ({}, "has medimageparse_3d of a version before 0.1.0"),
        ([], "the networks.json of medimageparse_3d is missing or damaged"),
    ):
        networks.write_text(json.dumps(content))
        with pytest.raises(ServeError, match=words):
            manifests.check_manifests(tmp_path, ["medimageparse_3d"], "cpu")
    networks.write_text(json.dumps({"version": VERSION}))
    manifests.check_manifests(tmp_path, ["medimageparse_3d"], "cpu")


def test_the_committed_demo_graphs_are_of_this_version():
    files = list(ROOT.glob("demo/*/weights*/*/1/networks.json"))
    assert len(files) == 2
    assert {json.loads(file.read_text())["version"] for file in files} == {VERSION}
