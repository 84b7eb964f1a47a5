"""Masks and probabilities of each prompt alone, by a real server."""

import base64
import json
import urllib.request

import numpy as np
import pytest
from helpers.nifti_answers import assert_same_geometry, label_image

ALL_OUTPUTS = ("nifti_file", "label_map", "masks", "masks_file", "probabilities", "probabilities_file", "scores")
PROMPTS = ("liver", "hepatic parenchyma", "spine")  # the first two compete for one organ


@pytest.fixture(scope="module")
def probabilities(infer, request_of):
    return infer(request_of(prompts=PROMPTS, output="probabilities"), "grpc", ALL_OUTPUTS)


def test_prompts_that_compete_are_both_whole(infer, request_of, probabilities, volume):
    usual, maps = infer(request_of(prompts=PROMPTS)), probabilities["probabilities"]
    assert np.array_equal(usual["label_map"], probabilities["label_map"])
    assert np.array_equal(usual["scores"], probabilities["scores"])
    assert (maps.dtype, maps.shape) == (np.uint8, (3, *volume.shape))
    for label, alone in enumerate(maps, start=1):
        assert (alone[usual["label_map"] == label] > 127).all()
    both = (maps[:2] > 127).all(0).sum()
    assert both > 0.5 * (maps[:2] > 127).any(0).sum()
    assert all(probabilities[name] is None for name in ("nifti_file", "masks", "masks_file", "probabilities_file"))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_files_and_masks_say_the_same(infer, request_of, probabilities, volume, protocol):
    files = infer(request_of(prompts=PROMPTS, output="probabilities_file"), protocol, ALL_OUTPUTS)
    file = label_image(files["probabilities_file"])
    assert np.array_equal(np.moveaxis(np.asarray(file.dataobj), 3, 0), probabilities["probabilities"])
    assert_same_geometry(file.slicer[..., 0], volume)
    assert np.array_equal(np.asarray(label_image(files["nifti_file"]).dataobj), probabilities["label_map"])
    masks = infer(request_of(prompts=PROMPTS, output="masks"), protocol, ALL_OUTPUTS)["masks"]
    assert np.array_equal(masks, probabilities["probabilities"] > 127)


def test_a_prompt_asked_alone_has_its_mask_as_the_label_map(infer, request_of):
    found = infer(request_of(prompts=["liver"], output="masks"), "grpc", ("label_map", "masks"))
    assert np.array_equal(found["masks"][0], found["label_map"])


def test_one_draw_of_several_is_the_usual_answer_and_their_mean_repeats(infer, request_of, probabilities):
    def ask(**draws):
        options = {name: np.array([number], np.int32) for name, number in draws.items()}
        inputs = request_of(prompts=["liver", "spine"], output="probabilities") | options
        return infer(inputs, "grpc", ("label_map", "probabilities", "uncertainty", "scores", "report"))

    one, usual = ask(draws=1), ask()
    assert np.array_equal(one["probabilities"], usual["probabilities"])
    assert one["uncertainty"] is None
    several, again = ask(draws=4), ask(draws=4)
    for name in ("label_map", "probabilities", "uncertainty", "scores"):
        assert np.array_equal(several[name], again[name])
    assert not np.array_equal(several["probabilities"], one["probabilities"])
    assert several["uncertainty"].shape == several["probabilities"].shape
    assert several["uncertainty"].any()
    for entry in json.loads(several["report"].item())["prompts"]:
        drawn = entry["draws"]["voxels"]
        assert drawn["minimum"] < drawn["maximum"]
        assert 0.8 < entry["draws"]["dice"] < 1


def test_instances_are_parts_of_the_label_map(infer, request_of):
    found = infer(
        request_of() | {"instances": np.array([True])}, "http", ("label_map", "instances", "instances_file", "report")
    )
    told = [each for entry in json.loads(found["report"].item())["prompts"] for each in entry["instances"]]
    assert told
    assert found["instances"].max() == len(told)
    assert not found["instances"][found["label_map"] == 0].any()
    assert np.array_equal(np.asarray(label_image(found["instances_file"]).dataobj), found["instances"])


def test_generate_takes_the_options_as_json(server, request_of, volume):
    sent = {"text": "liver", "output": "masks_file", "draws": 2}
    body = json.dumps(sent | {"image": base64.b64encode(request_of()["image"]).decode()}).encode()
    with urllib.request.urlopen(f"http://{server.http_url}/v2/models/medimageparse_3d/generate", body) as response:
        answer = json.load(response)
    assert {name for name in answer if name.endswith("_file")} == {"nifti_file", "masks_file", "uncertainty_file"}
    assert label_image(np.array(answer["masks_file"], np.object_)).shape == (*volume.shape, 1)
    assert json.loads(answer["report"])["draws"] == 2
