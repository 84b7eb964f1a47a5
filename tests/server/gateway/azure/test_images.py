"""2D: Microsoft's toolkit and the samples of the cards get what Triton answers."""

import base64
import json

import numpy as np
import pytest
from helpers.azure_requests import table_of
from helpers.azure_toolkit import encode_image
from helpers.image_answers import image_file


def png_of(picture):
    return base64.b64decode(encode_image(picture))


@pytest.fixture(scope="module")
def pictures(xrays):
    """Two small PNG files."""
    return [image_file(picture[::2, ::2]) for picture in xrays[:2]]


@pytest.mark.parametrize("prompts", ["left lung & right lung", "heart"])
def test_the_toolkit_gets_the_bytes_that_triton_answers(toolkit, infer_2d, xrays, prompts):
    [result] = toolkit.submit(image_list=xrays[:1], prompts=[prompts])
    expected = infer_2d({"image": png_of(xrays[0]), "text": prompts.encode(), "output": b"probabilities"})
    features = json.loads(expected["image_features"].item())
    masks = result["image_features"]
    assert (masks.dtype, masks.shape) == (np.uint8, (len(prompts.split("&")), 1024, 1024))
    assert masks.tobytes() == base64.b64decode(features["data"])
    assert masks.max() > 127  # or nothing would be shown
    assert result["text_features"] == [category.decode() for category in expected["text_features"]]
    assert len(result["text_features"]) == len(masks)
    assert toolkit.calls == [200]


def test_the_submitter_gets_each_row_at_its_index(toolkit, xrays):
    prompts = ["left lung", "heart", "left lung & heart", "right lung", "infection", "heart & lung", "left lung"]
    indexed = toolkit.create_submitter(batch_size=2).submit(xrays, prompts)
    assert [index for index, _ in indexed] == list(range(7))
    for (_, result), picture, prompt in zip(indexed, xrays, prompts, strict=True):
        [single] = toolkit.submit([picture], [prompt])
        assert np.array_equal(result["image_features"], single["image_features"])
        assert result["text_features"] == single["text_features"]


def test_the_samples_of_card_and_how_to_are_answered_and_params_change_nothing(gateway, pictures):
    """The card's sends two rows and `params: {}`, the how-to's none."""
    texts = ["left lung & right lung", "heart"]
    expected = gateway.ask("/score", table_of(*pictures, text=texts))
    assert expected.status == 200
    assert [len(row["text_features"]) for row in expected.json()] == [2, 1]
    for params in ({}, "sitk", None, [1], {"a": 1}):
        assert gateway.ask("/score", table_of(*pictures, text=texts, params=params)).body == expected.body


def test_options_in_params_reach_the_model(gateway, infer_2d, pictures):
    params = {"image_type": "X-Ray-Chest", "joint": False}
    [row] = gateway.ask("/score", table_of(pictures[0], text="left lung & right lung", params=params)).json()
    sent = {"image": pictures[0], "text": b"left lung & right lung", "output": b"probabilities"}
    options = {"image_type": b"X-Ray-Chest", "joint": np.array([False])}
    assert row["image_features"] == infer_2d(sent | options)["image_features"].item().decode()
    assert row["image_features"] != infer_2d(sent)["image_features"].item().decode()


def forms_of(pictures):
    """Section by section of the specification: every form that is taken."""
    columns = ["image", "text"]
    rows = [[base64.encodebytes(picture).decode(), "heart"] for picture in pictures]
    images = [row[0] for row in rows]
    split = {"columns": columns, "data": rows}
    records = [{"image": image, "text": "heart"} for image in images]
    for index in (None, ["a", "b"], [5, 3], [0, 0], 2, [0, 1, 2]):
        yield {"input_data": split | {"index": index}}
    yield {"input_data": {"columns": columns[::-1], "data": [row[::-1] for row in rows]}}
    yield {"input_data": {"columns": ["", *columns], "data": [[0, *row] for row in rows]}}
    yield {"input_data": split | {"more": 1}, "more": {}}
    yield {"input_data": records}
    yield {"input_data": {"image": images, "text": ["heart"] * len(rows)}}
    yield {"dataframe_split": split}
    yield {"dataframe_records": records}
    yield table_of(*pictures, text=" heart ")


def test_every_form_of_a_table_has_the_same_answer(gateway, pictures):
    expected = gateway.ask("/score", table_of(*pictures, text="heart"))
    assert expected.status == 200
    for form in forms_of(pictures):
        assert gateway.ask("/score", form).body == expected.body


@pytest.mark.parametrize("text", ["", "  ", "heart &", "& heart", "heart && lung", "&"])
def test_an_empty_prompt_is_refused_and_never_left_out(gateway, pictures, text):
    answer = gateway.ask("/score", table_of(*pictures, text=["heart", text]))
    assert answer.status == 400
    assert answer.json()["message"].startswith("row 1: ")


def test_the_toolkits_uneven_lists_are_refused_with_row_and_column(gateway, pictures):
    body = table_of(pictures[0])
    body["input_data"]["data"].append([None, "heart"])
    assert gateway.ask("/score", body).json()["message"].startswith("row 1: image is null")


def test_mlflows_address_has_the_same_rows(gateway, pictures):
    rows = gateway.ask("/score", table_of(*pictures, text="heart")).json()
    table = table_of(*pictures, text="heart")["input_data"]
    for form in (
        {"dataframe_split": table},
        {"inputs": [dict(zip(table["columns"], r, strict=True)) for r in table["data"]]},
    ):
        assert gateway.ask("/invocations", form).json() == {"predictions": rows}
