"""A model store beside the code: what is served of it, its digest, and `medimageparse verify`."""

import json
import shutil
import subprocess
from importlib.metadata import entry_points

import pytest
from helpers.places import ROOT
from medimageparse_contract.models import MODEL_3D
from medimageparse_demo.repository import WEIGHTS
from medimageparse_serving.launch import model_store, verify
from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.serve import parse_arguments

CODE = ROOT / "model_repository"
NETWORK = "mask_decoder_3d/1"


@pytest.fixture
def store(tmp_path):
    """The graphs of the 3D demo, and a file that is none of its."""
    folder = shutil.copytree(WEIGHTS, tmp_path / "store")
    (folder / MODEL_3D / "1" / "model.py").write_text("raise SystemExit('code of the store')")
    return folder


def run(store, *flags):
    return verify.main(["--runtime", "cpu", "--store", str(store), "--repository", str(CODE), *flags])


def test_code_comes_from_the_repository_and_graphs_from_the_store(store, tmp_path):
    found = model_store.assemble(CODE, store, tmp_path / "made")
    assert (found / MODEL_3D / "1" / "model.py").read_bytes() == (CODE / MODEL_3D / "1" / "model.py").read_bytes()
    assert (found / NETWORK / "model.onnx").resolve() == store / NETWORK / "model.onnx"
    assert {path.name for path in found.rglob("*") if path.is_symlink()} <= set(model_store.STORED)


def test_built_files_beside_the_code_are_not_served(store, tmp_path):
    code = shutil.copytree(CODE, tmp_path / "code", ignore=model_store.NOT_CODE)
    (code / NETWORK / "model.onnx").write_bytes(b"an older graph")
    (code / NETWORK / "model.plan").write_bytes(b"an older engine")
    found = model_store.assemble(code, store, tmp_path / "made")
    assert (found / NETWORK / "model.onnx").read_bytes() == (store / NETWORK / "model.onnx").read_bytes()
    assert not (found / NETWORK / "model.plan").exists()


def test_a_model_of_the_store_that_the_code_does_not_know_is_left_out(store, tmp_path):
    shutil.copytree(store / "mask_decoder_3d", store / "unknown")
    assert not (model_store.assemble(CODE, store, tmp_path / "made") / "unknown").exists()


def test_the_digest_is_that_of_the_lines_of_sha256sum(store):
    names = model_store.stored_files(store)
    assert len(names) == 7
    lines = subprocess.run(["sha256sum", *names], cwd=store, capture_output=True, check=True).stdout
    found = subprocess.run(["sha256sum"], input=lines, capture_output=True, check=True).stdout.split()[0].decode()
    assert model_store.digest(store) == found


def test_a_whole_store_is_told_and_its_digest_taken(store, capsys):
    assert run(store) == 0
    told = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert told["models"] == MODEL_3D
    assert told["digest"] == model_store.digest(store)
    assert run(store, "--models", MODEL_3D, "--digest", f"sha256:{told['digest']}") == 0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda store: (store / NETWORK / "model.onnx").write_bytes(b"cut"), "is not the one in its manifest"),
        (lambda store: (store / NETWORK / "manifest.json").unlink(), "manifest.json of mask_decoder_3d is missing"),
        (lambda store: (store / NETWORK / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda store: shutil.rmtree(store), "holds no built file"),
    ],
)
def test_a_damaged_store_is_refused(store, capsys, damage, words):
    damage(store)
    assert run(store) == 1
    assert words in capsys.readouterr().err


def test_a_store_with_another_digest_is_refused(store, capsys):
    """Also where graph and manifest were changed together, which the manifest cannot show."""
    before = model_store.digest(store)
    manifest = store / NETWORK / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"note": "changed"}))
    assert run(store) == 0
    assert run(store, "--digest", before) == 1
    assert "another digest" in capsys.readouterr().err


def test_models_that_must_be_there_are(store, capsys):
    assert run(store, "--models", "medimageparse_3d,medimageparse") == 1
    assert "is missing from the model repository" in capsys.readouterr().err


def test_engines_are_compared_with_their_manifest_without_a_gpu(store, capsys):
    for folder in sorted(store.glob("*/1")):
        if (folder / "model.onnx").exists():
            (folder / "model.plan").write_bytes(b"an engine")
            manifest = json.loads((folder / "manifest.json").read_text())
            plan = model_store.sha256(folder / "model.plan")
            manifest["engine"] = {"plan_sha256": plan, "gpu": "NVIDIA H100, 9.0, 590.1"}
            (folder / "manifest.json").write_text(json.dumps(manifest))
    flags = ["--runtime", "tensorrt", "--store", str(store), "--repository", str(CODE)]
    assert verify.main(flags) == 0
    assert "engines for: NVIDIA H100, 9.0" in capsys.readouterr().out
    (store / NETWORK / "model.plan").write_bytes(b"another engine")
    assert verify.main(flags) == 1


def test_no_code_is_said(store, tmp_path):
    with pytest.raises(ServeError, match="is no folder"):
        model_store.assemble(tmp_path / "nothing", store, tmp_path / "made")


def test_the_launcher_and_the_command_take_a_store(store):
    assert parse_arguments(["--runtime", "cpu", "--store", str(store)])["store"] == store
    [entry] = entry_points(group="medimageparse.commands", name="verify")
    assert entry.value == "medimageparse_serving.launch.verify:command"
