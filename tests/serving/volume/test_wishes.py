"""medimageparse_3d asked for more than labels: maps, draws, instances, and what is refused."""

import json
import re
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from helpers.nifti_answers import label_image
from helpers.volume_in_process import SIZE, VolumeInProcess
from medimageparse_contract.options import MAX_DRAWS
from scipy.special import expit

AFFINE = np.diag([-2.0, 2, 3, 1])
LABELS = ["nifti_file", "label_map", "scores", "report"]
MAPS = ["masks", "probabilities", "uncertainty", "instances"]
ALL = [*LABELS, *MAPS, *(f"{name}_file" for name in MAPS)]
N_SLICES = 6  # a window and a shorter one


def network(slices, draws):
    """The first prompt is where it is bright, the second where it is not black; a draw moves the threshold.

    An edge is where the grey value is 90. The third prompt and all that follow are nowhere.
    """
    grey = slices[:, 2::4, 2::4].astype(np.float32)
    n_prompts = len(draws) // (draws.max() + 1)
    numbers = np.arange(len(draws)) % n_prompts
    thresholds = np.where(numbers == 0, 100, 50) + 8 * draws
    masks = (grey[:, None] - thresholds[None, :, None, None]) / 10
    edges = np.repeat(np.where(np.abs(grey - 90) < 5, 4, -4)[:, None], len(draws), 1)
    scores = np.where(numbers < 2, 0.9, 0.1) * (slices.max((1, 2)) > 0)[:, None]
    return masks.astype(np.float32), edges.astype(np.float32), scores.astype(np.float32)


@pytest.fixture
def model(tmp_path, monkeypatch):
    return VolumeInProcess(network, tmp_path, monkeypatch)


@pytest.fixture
def volume():
    """Two bright boxes in a grey one, as grey values; the last slice is empty."""
    voxels = np.zeros((SIZE, SIZE, N_SLICES), np.uint8)
    voxels[8:56, 8:56, :5] = 80
    voxels[12:28, 16:48, 1:4] = 160
    voxels[36:52, 16:48, 1:3] = 130
    return voxels


@pytest.fixture
def ask(model, volume):
    image = nib.Nifti1Image(volume, AFFINE).to_bytes()
    return partial(model.ask, ALL, image=image, text="bright & grey", intensity="none", orientation="stored")


def report(answer):
    return json.loads(answer["report"].item())


def test_who_asks_for_nothing_more_gets_nothing_more(model, ask):
    answer = ask().arrays()
    assert set(answer) == set(LABELS)
    assert {name for call in model.calls("segment_window_3d") for name in call.names} == {
        "label_slices",
        "scores",
        "lost_to",
    }
    assert all(not call.inputs["noise_fields"].any() for call in model.calls("segment_window_3d"))
    assert "draws" not in report(answer)
    assert not {"draws", "instances"} & set(report(answer)["prompts"][0])


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({"output": "masks"}, {"label_map", "masks"}),
        ({"output": "masks_file"}, {"nifti_file", "masks_file"}),
        ({"output": "probabilities"}, {"label_map", "probabilities"}),
        ({"output": "probabilities_file"}, {"nifti_file", "probabilities_file"}),
        ({"draws": 2}, {"nifti_file", "label_map", "uncertainty", "uncertainty_file"}),
        ({"draws": 2, "output": "label_map"}, {"label_map", "uncertainty"}),
        ({"draws": 2, "output": "masks_file"}, {"nifti_file", "masks_file", "uncertainty_file"}),
        ({"draws": 2, "output": "probabilities"}, {"label_map", "probabilities", "uncertainty"}),
        ({"instances": True}, {"nifti_file", "label_map", "instances", "instances_file"}),
        ({"instances": True, "output": "nifti_file"}, {"nifti_file", "instances_file"}),
        ({"instances": True, "output": "masks"}, {"label_map", "masks", "instances"}),
        ({"instances": False, "draws": 1}, {"nifti_file", "label_map"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",  # a set has another order in each worker
)
def test_what_is_made_is_what_was_asked_for(ask, options, made):
    usual, answer = ask().arrays(), ask(**options).arrays()
    assert set(answer) == {*made, "scores", "report"}
    if options.get("draws", 1) == 1:
        for name in ("label_map", "nifti_file", "scores"):
            assert name not in answer or np.array_equal(answer[name], usual[name])


def test_maps_that_nobody_takes_are_not_made(model, ask, volume):
    image = nib.Nifti1Image(volume, AFFINE).to_bytes()
    answer = model.ask(["report"], image=image, text="bright", intensity="none", output="probabilities")
    assert set(answer.arrays()) == {"report"}
    assert all("mask_logits" not in call.names for call in model.calls("segment_window_3d"))


def test_a_file_holds_what_the_tensor_holds(ask, volume):
    for options, name in (
        ({"output": "masks"}, "masks"),
        ({"output": "probabilities"}, "probabilities"),
        ({"draws": 3, "output": "label_map"}, "uncertainty"),
        ({"instances": True, "output": "label_map"}, "instances"),
    ):
        tensor = ask(**options).arrays()[name]
        as_file = "nifti_file" if options["output"] == "label_map" else f"{name}_file"
        image = label_image(ask(**options | {"output": as_file}).arrays()[f"{name}_file"])
        assert image.get_data_dtype() == tensor.dtype
        assert np.array_equal(image.affine, AFFINE)
        voxels = np.asarray(image.dataobj)
        assert np.array_equal(np.moveaxis(voxels, 3, 0) if voxels.ndim == 4 else voxels, tensor)


def test_the_draws_of_a_prompt_are_averaged_and_their_spread_told(ask, volume):
    n_draws = 4
    answer = ask(draws=n_draws, output="probabilities").arrays()
    one = ask(output="probabilities").arrays()["probabilities"]
    drawn = np.stack([expit((volume / 1.0 - 100 - 8 * k) / 10) for k in range(n_draws)]) * (volume.max((0, 1)) > 0)
    inner = np.s_[18:22, 24:40, 1:4]  # away from what the resize rounds
    mean, spread = drawn.mean(0)[inner], drawn.std(0)[inner]
    assert np.abs(answer["probabilities"][0][inner] - 255 * mean).max() <= 1
    assert np.abs(answer["uncertainty"][0][inner] - 510 * spread).max() <= 1
    assert answer["uncertainty"].max() <= 255
    assert (answer["probabilities"][0][inner] <= one[0][inner]).all()
    told = report(answer)
    assert told["draws"] == n_draws
    first = told["prompts"][0]["draws"]
    assert first["voxels"]["maximum"] == ask(output="masks").arrays()["masks"][0].sum()
    assert first["voxels"]["minimum"] <= first["voxels"]["mean"] <= first["voxels"]["maximum"]
    assert first["volume_ml"]["maximum"] == pytest.approx(first["voxels"]["maximum"] * 12 / 1000)
    assert 0 < first["dice"] < 1


def test_the_labels_of_several_draws_are_those_of_their_mean(ask):
    answer = ask(draws=3, output="masks").arrays()
    whole, labels = answer["masks"].astype(bool), answer["label_map"]
    assert set(np.unique(labels)) == {0, 1, 2}
    for label, mask in enumerate(whole, start=1):
        assert mask[labels == label].all()
    assert answer["scores"].shape == (2, N_SLICES)


def test_draws_of_what_is_nowhere_agree(ask):
    told = report(ask(draws=2, text="bright & grey & absent").arrays())["prompts"][2]["draws"]
    assert told == {
        "voxels": dict.fromkeys(("mean", "minimum", "maximum"), 0.0),
        "volume_ml": told["voxels"],
        "dice": 1,
    }


def test_each_prompt_is_decoded_once_a_draw_in_one_call_a_window(model, ask):
    ask(draws=3)
    windows = model.calls("segment_window_3d")
    assert len(windows) == 2
    assert [call.inputs["noise_fields"].tolist() for call in windows] == [[0, 0, 1, 1, 2, 2]] * 2


def test_instances_are_numbered_measured_and_told_of_their_prompt(ask):
    answer = ask(text="bright", instances=True).arrays()
    told, numbers = report(answer)["prompts"][0]["instances"], answer["instances"]
    assert (numbers.dtype, numbers.max(), len(told)) == (np.uint16, 2, 2)
    assert not numbers[answer["label_map"] == 0].any()
    for entry in told:
        at = np.argwhere(numbers == entry["id"])
        assert entry["voxels"] == len(at)
        assert entry["volume_ml"] == pytest.approx(len(at) * 12 / 1000)
        assert entry["box_voxels"] == [at.min(0).tolist(), at.max(0).tolist()]
        assert entry["centre_mm"] == pytest.approx(nib.affines.apply_affine(AFFINE, at.mean(0)), abs=1e-3)
        corners = nib.affines.apply_affine(AFFINE, [at.min(0) - 0.5, at.max(0) + 0.5])
        assert np.allclose(entry["box_mm"], [corners.min(0), corners.max(0)], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draws": 0}, "draws is out of range; send a whole number from 1 to 16"),
        ({"draws": -1}, "draws is out of range"),
        ({"draws": MAX_DRAWS + 1}, "draws is out of range"),
        ({"draws": 2, "instances": True}, "instances are those of one draw"),
        ({"draws": 16, "text": "&".join("abcde")}, "16 draws of 5 prompts are more than 64.*fewer prompts"),
        ({"output": "mask"}, "output is unknown; send one of all, nifti_file.*probabilities_file"),
        ({"output": "instances"}, "output is unknown"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_before_the_networks_begin(model, ask, options, words):
    answer = ask(**options)
    assert answer.error().code == "INVALID_ARG"
    assert re.search(words, answer.error().message())
    assert not model.calls("segment_window_3d")
    assert not model.calls("text_encoder_3d")


@pytest.mark.parametrize("options", [{"output": "masks"}, {"draws": 2}, {"instances": True}], ids=str)
def test_maps_over_the_limit_are_refused_before_the_networks_begin(model, ask, options):
    model.pipeline.max_map_bytes = 2 * SIZE * SIZE * N_SLICES - 1
    answer = ask(**options)
    assert "the limit of this server; send fewer prompts" in answer.error().message()
    assert not model.calls("segment_window_3d")
    model.pipeline.max_map_bytes = 10 * SIZE * SIZE * N_SLICES
    assert not ask(**options).has_error()
