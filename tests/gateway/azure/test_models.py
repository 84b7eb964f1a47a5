"""Which model a request means, what `params` asks for, and how the models' answers become Azure's."""

import base64
import gzip
import json
import struct

import numpy as np
import pytest
from helpers.image_answers import image_file
from medimageparse_contract.image_formats import FORMATS
from medimageparse_contract.models import MODEL_2D, MODEL_3D
from medimageparse_gateway.azure_forms import Row
from medimageparse_gateway.azure_models import (
    FILE_BUFFER,
    MODELS,
    lengthen,
    model_named,
    model_of_file,
    pad_gzip,
)
from medimageparse_gateway.errors import HttpError
from PIL import Image

IMAGE_MODEL, VOLUME_MODEL = MODELS[MODEL_2D], MODELS[MODEL_3D]
NIFTI_HEADERS = [struct.pack(order + "i", size) + bytes(344) for order in "<>" for size in (348, 540)]


@pytest.mark.parametrize("file", [b"\x1f\x8b\x08\0", *NIFTI_HEADERS])
def test_gzip_and_nifti_are_volumes(file):
    assert model_of_file(file) is VOLUME_MODEL


@pytest.mark.parametrize("kind", FORMATS)
def test_pictures_are_images(kind):
    file = image_file(Image.new("RGB", (2, 2)), kind)
    assert model_of_file(file) is IMAGE_MODEL


@pytest.mark.parametrize("file", [b"", b"liver", b"\x89PNG", b"GIF89a", b"\0\0\0\0" * 100, b"\x1f", b"PK\3\4"])
def test_other_files_are_refused_with_the_names_of_both_models(file):
    with pytest.raises(HttpError) as refused:
        model_of_file(file)
    assert refused.value.status == 400
    assert {"medimageparse,", "medimageparse_3d"} <= set(refused.value.sentence.split())


@pytest.mark.parametrize(
    ("deployment", "model"),
    [
        ("medimageparse", IMAGE_MODEL),
        ("MedImageParse", IMAGE_MODEL),
        ("medimageparse_3d", VOLUME_MODEL),
        ("MedImageParse3D", VOLUME_MODEL),
        ("medimageparse-3d", VOLUME_MODEL),
        ("medimageparse-v2", None),
        ("medimageparse-3d-1", None),
        ("blue", None),
        ("", None),
    ],
)
def test_a_deployment_names_a_model_only_by_its_own_name(deployment, model):
    assert model_named(deployment) is model


@pytest.mark.parametrize("params", [None, "sitk", 7, True, [1], [], "", {}, {"a": 1}, {"joint": None}])
@pytest.mark.parametrize("model", MODELS.values())
def test_params_without_a_key_of_ours_ask_for_nothing(model, params):
    assert model.read_params(params) == {}


def test_params_are_options_of_the_model_that_has_them():
    params = {
        **{"image_type": "CT-Chest", "joint": False, "p_value_threshold": 0.05, "tile": True},
        **{"intensity": "none", "orientation": "stored", "slice_axis": "2", "unknown": {}},
    }
    of_images = {"image_type": "CT-Chest", "joint": False, "p_value_threshold": 0.05, "tile": True}
    assert IMAGE_MODEL.read_params(params) == of_images
    assert VOLUME_MODEL.read_params(params) == {"intensity": "none", "orientation": "stored", "slice_axis": "2"}


def test_numbers_are_written_as_the_option_wants_them():
    [threshold] = IMAGE_MODEL.read_params({"p_value_threshold": 1}).values()
    assert (threshold, type(threshold)) == (1.0, float)
    assert VOLUME_MODEL.read_params({"slice_axis": 2}) == {"slice_axis": "2"}


@pytest.mark.parametrize(
    ("model", "params", "words"),
    [
        (IMAGE_MODEL, {"joint": "true"}, "joint is not true or false"),
        (IMAGE_MODEL, {"joint": 1}, "joint is not true or false"),
        (IMAGE_MODEL, {"tile": "true"}, "tile is not true or false"),
        (IMAGE_MODEL, {"p_value_threshold": "0.05"}, "p_value_threshold is not a number"),
        (IMAGE_MODEL, {"p_value_threshold": True}, "p_value_threshold is not a number"),
        (IMAGE_MODEL, {"p_value_threshold": [0.05]}, "p_value_threshold is not a number"),
        (IMAGE_MODEL, {"image_type": ["CT-Chest"]}, "image_type is not a string"),
        (IMAGE_MODEL, {"image_type": True}, "image_type is not a string"),
        (VOLUME_MODEL, {"intensity": {"width": 1}}, "intensity is not a string"),
        (VOLUME_MODEL, {"slice_axis": [0]}, "slice_axis is not a string"),
        (VOLUME_MODEL, {"orientation": False}, "orientation is not a string"),
    ],
)
def test_a_key_of_ours_with_an_impossible_value_is_refused(model, params, words):
    with pytest.raises(HttpError) as refused:
        model.read_params(params)
    assert refused.value.status == 400
    assert words in refused.value.sentence


def test_a_row_goes_to_the_model_as_the_contract_says():
    row = Row(b"file", "liver & spleen")
    fixed = {"image": b"file", "text": b"liver & spleen"}
    assert IMAGE_MODEL.inputs_of(row, {"joint": True}) == fixed | {"output": "probabilities", "joint": True}
    assert VOLUME_MODEL.inputs_of(row, {}) == fixed | {"output": "nifti_file"}


def strings(*values):
    return np.array(values, np.object_)


@pytest.mark.parametrize("categories", [[b"lung"], [b"liver", b"other organ"]])
def test_an_images_answer_is_json_in_a_string_and_a_list_of_categories(categories):
    features = json.dumps({"data": "AAEC", "shape": [1, 1, 3], "dtype": "uint8"})
    answer = IMAGE_MODEL.encode({"image_features": strings(features.encode()), "text_features": strings(*categories)})
    assert json.loads(answer) == {"image_features": features, "text_features": [name.decode() for name in categories]}


@pytest.mark.parametrize("n_bytes", [1, 1000, FILE_BUFFER - 400, FILE_BUFFER, FILE_BUFFER + 400, 2 * FILE_BUFFER])
def test_a_volumes_file_is_longer_than_pythons_buffer_and_holds_the_same(n_bytes):
    file = gzip.compress(np.random.default_rng(0).bytes(n_bytes), 1)
    sent = json.dumps({"data": base64.b64encode(file).decode()})
    answer = json.loads(VOLUME_MODEL.encode({"nifti_file": strings(sent.encode())}))
    assert list(answer) == ["nifti_file"]
    received = base64.b64decode(json.loads(answer["nifti_file"])["data"], validate=True)
    assert len(received) > FILE_BUFFER
    assert gzip.decompress(received) == gzip.decompress(file)
    assert len(file) <= FILE_BUFFER or received == file


@pytest.mark.parametrize("n_bytes", range(60, 70))
def test_padding_gives_the_length_that_was_asked_for_or_the_file(n_bytes):
    file = gzip.compress(b"labels" * 9, 1)
    padded = pad_gzip(file, n_bytes)
    assert len(padded) == max(n_bytes, len(file))
    assert gzip.decompress(padded) == b"labels" * 9


def test_padding_leaves_a_header_alone_that_has_a_name_already():
    file = gzip.compress(b"labels")
    named = file[:3] + b"\x08" + file[4:10] + b"labels.nii\0" + file[10:]
    assert gzip.decompress(named) == b"labels"
    assert pad_gzip(named, 1000) == named


def test_a_long_file_is_passed_on_as_it_is():
    text = json.dumps({"data": "A" * 200_000})
    assert lengthen(text) is text
