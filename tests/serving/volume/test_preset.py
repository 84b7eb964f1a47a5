"""Sets of the catalogue in place of prompts; more structures than are decoded together go in several passes."""

import json

import numpy as np
import pytest
from google.protobuf import text_format
from helpers.places import ROOT
from helpers.volume_in_process import VolumeInProcess
from helpers.wrong_volumes import SEVERAL_PASSES, nifti
from medimageparse_contract.catalogue import rows_of_presets, structures
from medimageparse_serving.prompts.preset import PASS
from tritonclient.grpc.model_config_pb2 import ModelConfig

OUTPUTS = ["label_map", "scores", "report"]


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Of 64 prompts the first sees the left half of each slice, of fewer the first the lower half, the last nothing."""

    def network(slices, draws):
        masks = np.full((len(slices), len(draws), 16, 16), -20, np.float32)
        if len(draws) == PASS:
            masks[:, 0, :, :8] = 20
        else:
            masks[:, 0, 8:] = 20
        scores = np.full((len(slices), len(draws)), -9, np.float32)
        scores[:, 0] = 9
        return masks, np.zeros_like(masks), scores

    return VolumeInProcess(network, tmp_path, monkeypatch)


def ask(model, **inputs):
    response = model.ask(OUTPUTS, image=nifti(shape=(64, 64, 6)), output="label_map", **inputs)
    assert not response.has_error(), response.error().message()
    arrays = response.arrays()
    return arrays["label_map"], arrays["scores"], json.loads(arrays["report"].item())


def test_a_preset_is_its_sentences_and_the_report_says_which_structures_they_are(model):
    rows = structures("3d", preset="ct-abdomen")
    labels, scores, report = ask(model, preset="CT-Abdomen")
    again, scores_again, plain = ask(model, text=" & ".join(row.prompt for row in rows))
    assert np.array_equal(labels, again)
    assert np.array_equal(scores, scores_again)
    expected = [(row.id, row.type.meaning if row.type else None) for row in rows]
    assert [(told["id"], told["type"]) for told in report["prompts"]] == expected
    for told in report["prompts"]:
        del told["id"], told["type"]
    assert report["prompts"] == plain["prompts"]


def test_more_structures_than_compete_go_in_passes_and_the_first_has_its_voxels(model):
    rows = rows_of_presets(SEVERAL_PASSES.decode(), "3d")
    assert len(rows) > PASS
    labels, scores, report = ask(model, preset=SEVERAL_PASSES)
    assert scores.shape == (len(rows), 6)
    assert np.flatnonzero(scores.max(1) > 0.5).tolist() == [0, PASS]
    assert sorted(np.unique(labels)) == [0, 1, PASS + 1]
    first, later = labels == 1, labels == PASS + 1
    assert np.count_nonzero(first) == labels.size // 2
    assert np.count_nonzero(later) == labels.size // 4
    assert [told["label"] for told in report["prompts"] if told["present"]] == [1, PASS + 1]
    assert report["prompts"][PASS]["id"] == rows[PASS].id
    windows = [len(call.inputs["text_features"]) for call in model.calls("segment_window_3d")]
    assert windows == [PASS, len(rows) - PASS] * 2


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, "neither text nor preset"),
        ({"text": "liver", "preset": "ct-abdomen"}, "send one of them"),
        ({"preset": "liver"}, "preset is unknown; send one such as ct-abdomen"),
        ({"preset": ""}, "preset is unknown"),
        ({"preset": "ct-abdomen & liver"}, "preset is unknown"),
        ({"preset": SEVERAL_PASSES, "draws": 2}, "send fewer"),
        ({"preset": SEVERAL_PASSES, "instances": True}, "decoded together"),
        ({"preset": SEVERAL_PASSES, "output": "masks"}, "decoded together"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(model, inputs, sentence):
    wanted = [*OUTPUTS, "masks", "instances"]
    response = model.ask(wanted, **{"image": nifti(shape=(64, 64, 6)), "output": "label_map"} | inputs)
    assert sentence in response.error().message()
    assert response.error().code == "INVALID_ARG"
    assert not model.calls("segment_window_3d")


def test_a_pass_is_what_the_tokenizer_takes():
    config = text_format.Parse((ROOT / "model_repository/tokenize_prompts/config.pbtxt").read_text(), ModelConfig())
    assert int(config.parameters["max_prompts"].string_value) == PASS
