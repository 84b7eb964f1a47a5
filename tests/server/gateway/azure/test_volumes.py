"""3D: the decoders of Azure's samples read the answer, and it is what Triton says. Both models share /score."""

import base64
import gzip
import json

import nibabel as nib
import numpy as np
import pytest
from helpers.azure_requests import table_of
from helpers.azure_toolkit import load_with_flush, load_without_flush
from helpers.image_answers import image_file

PROMPTS = "liver & spleen & stomach"


@pytest.fixture(scope="module")
def small_answer(gateway, small_volume):
    answer = gateway.ask("/medimageparse_3d/score", table_of(gzip.compress(small_volume.to_bytes()), text="liver"))
    [row] = answer.json()
    return row["nifti_file"]


@pytest.mark.parametrize("buffering", [-1, 128 * 2**10])
def test_the_cards_decoder_reads_even_the_smallest_answer(small_answer, buffering):
    """It loads the file before Python has written its buffer: 8 KiB, and 128 KiB from Python 3.14 on."""
    image, labels = load_without_flush(small_answer, buffering)
    assert image.shape == labels.shape == (8, 8, 4)


def test_both_decoders_read_the_same_labels_with_the_geometry_of_the_input(small_answer, small_volume):
    _, labels = load_without_flush(small_answer)
    image, values = load_with_flush(small_answer)
    assert np.array_equal(labels, values)
    assert (labels.dtype, image.get_data_dtype()) == (np.uint8, np.uint8)
    assert set(np.unique(labels)) <= {0, 1}
    assert image.shape == small_volume.shape
    assert np.array_equal(image.affine, small_volume.affine)
    assert np.isnan(image.dataobj.slope) or (image.dataobj.slope, image.dataobj.inter) == (1, 0)


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
@pytest.mark.parametrize("encode", [base64.encodebytes, base64.b64encode])
def test_the_labels_are_tritons_for_a_plain_file_too(gateway, infer_3d, volume, pack, encode):
    file = pack(volume.to_bytes())
    body = {"input_data": {"columns": ["image", "text"], "data": [[encode(file).decode(), PROMPTS]]}}
    [row] = gateway.ask("/score", body).json()
    content = base64.b64decode(json.loads(row["nifti_file"])["data"])
    assert content[:2] == b"\x1f\x8b"
    labels = np.asanyarray(nib.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)
    label_map = infer_3d({"image": file, "text": PROMPTS.encode()})["label_map"]
    assert np.array_equal(labels, label_map)
    assert len(np.unique(labels)) > 2


def test_options_in_params_reach_the_model(gateway, volume):
    file = gzip.compress(volume.to_bytes())
    answers = {
        params["intensity"]: gateway.ask("/score", table_of(file, params=params)).body
        for params in ({"intensity": "auto"}, {"intensity": "ct-bone"})
    }
    assert answers["auto"] == gateway.ask("/score", table_of(file)).body
    assert answers["auto"] != answers["ct-bone"]
    wrong = gateway.ask("/score", table_of(file, params={"intensity": "loud"}))
    assert (wrong.status, wrong.json()["message"][:7]) == (400, "row 0: ")


def test_a_bare_score_knows_images_from_volumes(gateway, small_volume, xrays):
    image, file = image_file(xrays[0][::2, ::2]), small_volume.to_bytes()
    for headers in ({}, {"azureml_model_deployment": "medimageparse-v2"}):
        assert list(gateway.ask("/score", table_of(image), **headers).json()[0]) == ["image_features", "text_features"]
        for volume in (file, gzip.compress(file)):
            assert list(gateway.ask("/score", table_of(volume), **headers).json()[0]) == ["nifti_file"]
        text = gateway.ask("/score", table_of(b"a letter\n"), **headers)
        assert text.status == 400
        assert "medimageparse" in text.json()["message"]
        assert "medimageparse_3d" in text.json()["message"]


def test_a_named_model_refuses_the_other_ones_files(gateway, small_volume, xrays):
    for path, file in (
        ("/medimageparse/score", small_volume.to_bytes()),
        ("/medimageparse_3d/score", image_file(xrays[0][::2, ::2])),
    ):
        answer = gateway.ask(path, table_of(file))
        assert (answer.status, answer.json()["message"][:7]) == (400, "row 0: ")
        assert answer.headers["x-ms-run-function-failed"] == "True"
