"""Maps of each prompt alone: what the client asks for, gets and writes."""

import nibabel as nib
import numpy as np
import pytest
from medimageparse_client import Client
from medimageparse_client.cli import main
from medimageparse_client.errors import InvalidRequest, OddAnswer

PROMPTS = ["liver", "left kidney"]


@pytest.mark.parametrize("maps", ["probabilities", "masks"])
@pytest.mark.parametrize("progress", [None, lambda *told: None])
def test_masks_are_whole_and_overlap_where_maps_are_asked_for(triton, volume_file, volume, maps, progress):
    with Client() as client:
        result = client.segment(volume_file, PROMPTS, maps=maps, progress=progress)
        labels = client.segment(volume_file, PROMPTS)
    assert (triton.requests[0]["output"], triton.requests[0]["outputs"][-1]) == (f"{maps}_file", f"{maps}_file")
    assert np.array_equal(result.mask("liver"), (volume == 1) | (volume == 2))
    assert np.array_equal(result.mask("left kidney"), (volume == 2) | (volume == 3))
    assert np.array_equal(labels.mask("liver"), volume == 1)
    assert np.array_equal(result.label_map, labels.label_map)
    assert (labels.probabilities, labels.maps) == (None, {})
    assert list(result.maps) == [maps]


def test_probabilities_are_bytes_of_each_prompt_alone(triton, volume_file, volume, tmp_path):
    with Client() as client:
        result = client.segment(volume_file, PROMPTS, maps="probabilities")
    assert (result.probabilities.dtype, result.probabilities.shape) == (np.uint8, (2, *volume.shape))
    assert np.array_equal(result.probabilities[0], 204 * (volume == 1) + 153 * (volume == 2))
    for name in ("p.nii.gz", "p.nii"):
        result.save_map("probabilities", tmp_path / name)
        saved = np.asarray(nib.load(tmp_path / name).dataobj)
        assert np.array_equal(np.moveaxis(saved, 3, 0), result.probabilities)
    with pytest.raises(ValueError, match="no masks"):
        result.save_map("masks", tmp_path / "m.nii.gz")
    with pytest.raises(ValueError, match=".nii.gz or .nii"):
        result.save_map("probabilities", tmp_path / "p.npy")


def test_draws_and_instances_are_arrays_and_files(triton, volume_file, volume, tmp_path):
    with Client() as client:
        drawn = client.segment(volume_file, PROMPTS, maps="probabilities", draws=8)
        counted = client.segment(volume_file, PROMPTS, instances=True)
    first, second = triton.requests
    assert (first["draws"], first["outputs"][-2:]) == (8, ["probabilities_file", "uncertainty_file"])
    assert (second["instances"], second["outputs"][-1], "draws" in second) == (True, "instances_file", False)
    assert (drawn.uncertainty.dtype, drawn.uncertainty.shape) == (np.uint8, (2, *volume.shape))
    assert (drawn.instances, counted.uncertainty) == (None, None)
    assert counted.instances.dtype == np.uint16
    assert np.array_equal(counted.instances, volume * 300)
    counted.save_map("instances", tmp_path / "i.nii.gz")
    assert np.array_equal(np.asarray(nib.load(tmp_path / "i.nii.gz").dataobj), counted.instances)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"maps": "labels"}, "maps is unknown; give one of masks, probabilities"),
        ({"draws": 0}, "draws is a whole number from 1 to 16"),
        ({"draws": 17}, "draws is a whole number from 1 to 16"),
        ({"draws": 2.5}, "draws is a whole number from 1 to 16"),
        ({"draws": True}, "draws is a whole number from 1 to 16"),
        ({"draws": 2, "instances": True}, "instances are those of one draw"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_before_it_is_sent(triton, volume_file, options, words):
    with Client() as client, pytest.raises(InvalidRequest, match=words):
        client.segment(volume_file, "liver", **options)
    assert triton.requests == []


def test_maps_that_do_not_come_or_do_not_fit_are_odd(triton, volume_file, volume, affine, monkeypatch):
    with Client() as client:
        monkeypatch.setattr(triton, "missing_output", "masks_file")
        with pytest.raises(OddAnswer, match="no masks_file"):
            client.segment(volume_file, PROMPTS, maps="masks")
        monkeypatch.setattr(triton, "missing_output", "")
        whole = triton.nifti_file
        shapes = ((3, 4, 5, 2), (*volume.shape, 3), volume.shape)
        for voxels in (*(np.zeros(shape, np.uint8) for shape in shapes), np.zeros((*volume.shape, 2), np.uint16)):

            def odd(self, given, affine, voxels=voxels):
                return whole(self, voxels if given.ndim == 4 else given, affine)

            monkeypatch.setattr(triton, "nifti_file", odd)
            with pytest.raises(OddAnswer, match="masks_file cannot be read"):
                client.segment(volume_file, PROMPTS, maps="masks")


def test_the_command_line_writes_probabilities_and_whole_masks(triton, volume_file, volume, tmp_path):
    out = tmp_path / "out"
    command = ["segment", str(volume_file), *PROMPTS, "-o", f"{out}/", "--masks-dir", f"{out}/each", "--force"]
    assert main([*command, "--probabilities", str(tmp_path / "p.nii.gz")]) == 0
    assert nib.load(tmp_path / "p.nii.gz").shape == (*volume.shape, 2)
    assert np.array_equal(np.asarray(nib.load(out / "each/liver.nii.gz").dataobj), (volume == 1) | (volume == 2))
    assert main(command) == 0
    assert triton.requests[-1]["output"] == "masks_file"
    assert np.array_equal(np.asarray(nib.load(out / "each/liver.nii.gz").dataobj), (volume == 1) | (volume == 2))
    assert main([*command, "--no-overlap"]) == 0
    assert triton.requests[-1]["output"] == "nifti_file"
    assert np.array_equal(np.asarray(nib.load(out / "each/liver.nii.gz").dataobj), volume == 1)


def test_probabilities_of_a_folder_lie_in_a_folder(triton, volume_file, tmp_path):
    folder = str(volume_file.parent)
    assert main(["segment", folder, "liver", "--probabilities", str(tmp_path / "p")]) == 0
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["ct.nii.gz"]


def test_the_command_line_writes_spread_and_instances(triton, volume_file, volume, tmp_path, monkeypatch, capsys):
    told = {"draws": {"volume_ml": {"mean": 2.0, "minimum": 1.5, "maximum": 2.5}, "dice": 0.875}}
    monkeypatch.setitem(triton.told, "liver", told | {"instances": [{"id": 1}, {"id": 2}]})
    spread, numbers = tmp_path / "u.nii.gz", tmp_path / "i.nii"
    assert main(["segment", str(volume_file), *PROMPTS, "--draws", "4", "--uncertainty", str(spread)]) == 0
    assert "(draws: 1.5..2.5 ml, Dice 0.875)" in capsys.readouterr().out
    assert nib.load(spread).shape == (*volume.shape, 2)
    assert main(["segment", str(volume_file), *PROMPTS, "--instances", str(numbers)]) == 0
    assert "(2 instances)" in capsys.readouterr().out
    assert np.array_equal(np.asarray(nib.load(numbers).dataobj), volume * 300)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--uncertainty", "u.nii.gz"], "--uncertainty is the spread of several draws"),
        (["--instances", "i.nii.gz", "--draws", "2"], "--instances are those of one draw"),
        (["--draws", "2", "--probabilities", "p.png"], "--probabilities names a .nii.gz or .nii file"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_told_before_anything_is_sent(triton, volume_file, options, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["segment", str(volume_file), "liver", *options])
    assert words in capsys.readouterr().err
    assert triton.requests == []
