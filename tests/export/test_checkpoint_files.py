"""Weights as people save them are read whole, or refused in a sentence."""

from pathlib import Path

import pytest
import torch
from medimageparse.__main__ import main
from medimageparse.checkpoint import CheckpointError, load_networks, published_state, save_checkpoint
from medimageparse.checkpoint_files import ENDINGS, read_checkpoint, weights_file
from medimageparse.networks import build_random
from medimageparse.variants import TINY, TINY_2D
from safetensors.torch import save_file


@pytest.fixture(scope="module", params=[TINY, TINY_2D], ids=lambda variant: variant.name)
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def modules(variant):
    return build_random(variant, 0)


@pytest.fixture(scope="module")
def whole(modules, variant):
    return {name: tensor.contiguous() for name, tensor in published_state(modules, variant.model).items()}


@pytest.fixture(scope="module")
def tensors(whole):
    """Without the vocabulary, which is most of the bytes."""
    return {name: tensor for name, tensor in whole.items() if not name.endswith("token_embedding.weight")}


def prefixed(tensors, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


SAVED = {
    "a plain dict": lambda tensors: tensors,
    "as biomedparse_v2.ckpt": lambda tensors: {"state_dict": prefixed(tensors, "model."), "epoch": 3},
    "under model": lambda tensors: {"model": tensors, "optimizer": {"state": {}, "param_groups": []}},
    "under model_state_dict": lambda tensors: {"model_state_dict": tensors, "loss": 0.5},
    "under module": lambda tensors: {"module": tensors},
    "under two keys": lambda tensors: {"state_dict": {"model": tensors}},
    "of DataParallel": lambda tensors: prefixed(tensors, "module."),
    "of a compiled module in Lightning": lambda tensors: {"state_dict": prefixed(tensors, "model._orig_mod.")},
    "of a module in a module": lambda tensors: {"model": prefixed(tensors, "module.model.")},
}


def assert_read(path, tensors, variant):
    read, found = read_checkpoint(path)
    assert found is variant
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor.float()) for name, tensor in tensors.items())
    return read


@pytest.mark.parametrize("saved", SAVED.values(), ids=SAVED)
def test_a_torch_file_is_read_however_it_was_saved(tensors, variant, tmp_path, saved):
    torch.save(saved(tensors), tmp_path / "tuned.pth")
    assert_read(tmp_path / "tuned.pth", tensors, variant)


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_safetensors_are_read_without_metadata_of_ours(tensors, variant, tmp_path, prefix):
    save_file(prefixed(tensors, prefix), tmp_path / "tuned.safetensors")
    assert_read(tmp_path / "tuned.safetensors", tensors, variant)


def test_what_was_saved_here_is_read_here(modules, whole, variant, tmp_path):
    save_checkpoint(tmp_path / "tiny.safetensors", modules, variant)
    load_networks(assert_read(tmp_path / "tiny.safetensors", {n: t.half() for n, t in whole.items()}, variant), variant)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_are_read_as_fp32(tensors, variant, tmp_path, dtype):
    other = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    torch.save(other, tmp_path / "tuned.pt")
    assert_read(tmp_path / "tuned.pt", other, variant)


def test_the_one_file_of_an_mlflow_folder_is_found(whole, variant, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    (tmp_path / "requirements.txt").write_text("torch\n")
    torch.save(whole, data / "model.pth")
    assert weights_file(tmp_path) == data / "model.pth"
    load_networks(assert_read(weights_file(tmp_path), whole, variant), variant)


def test_several_files_in_a_folder_are_listed_and_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/epoch_1.ckpt", "checkpoints/epoch_2.ckpt", "last.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"3 files.*epoch_1\.ckpt, .*epoch_2\.ckpt, last\.safetensors"):
        weights_file(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "MLmodel").touch()
    with pytest.raises(CheckpointError, match=f"no file of weights.*{ENDINGS[0]}"):
        weights_file(tmp_path)


class Runs:
    """What pickle would run."""

    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


REFUSED = {
    "several sets": (lambda t: {"model": t, "state_dict": t}, "several sets of weights.*state_dict, model"),
    "a set twice": (lambda t: t | prefixed(t, "module."), "twice, with and without a prefix"),
    "no tensors": (lambda t: {"model": {}}, "something else than tensors by name"),
    "numbers": (lambda t: {"model": {"weight": 3}}, "something else than tensors by name"),
    "a list": (lambda t: list(t.values()), "something else than tensors by name"),
    "another model": (lambda t: {"encoder.weight": torch.zeros(3)}, "neither MedImageParse's nor"),
    "code": (lambda t: {"model": t, "config": Runs()}, "could run code"),
}


@pytest.mark.parametrize(("saved", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_one_set_of_its_tensors_is_refused(tensors, tmp_path, monkeypatch, saved, words):
    monkeypatch.chdir(tmp_path)
    torch.save(saved(tensors), tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(tmp_path / "other.pt")
    assert not Path("touched").exists()


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
@pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_refused(tensors, tmp_path, name, part):
    path = tmp_path / name
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(CheckpointError, match=r"whole"):
        read_checkpoint(path)


def test_a_backbone_of_unknown_width_is_refused(tensors, tmp_path):
    wide = tensors | {"backbone.patch_embed.proj.weight": torch.zeros(99, 3, 7, 7)}
    torch.save(wide, tmp_path / "wide.pt")
    with pytest.raises(CheckpointError, match="99 wide"):
        read_checkpoint(tmp_path / "wide.pt")


def test_the_command_tells_of_a_folder_with_several_files(tmp_path, capsys):
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).touch()
    assert main(["export", "--checkpoint", str(tmp_path)]) == 1
    assert "name one of them: a.pt, b.pt" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_told(tmp_path, capsys):
    assert main(["export", "--checkpoint", str(tmp_path / "none.pt")]) == 1
    assert "none.pt" in capsys.readouterr().err
