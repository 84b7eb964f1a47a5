"""Mask logits to 8-bit probabilities of the image, categories and report."""

import base64
import json
import weakref
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from medimageparse_contract.categories import CLASSES
from medimageparse_serving.image.geometry import Geometry, Intensity
from medimageparse_serving.image.probability_maps import (
    AT_A_TIME,
    check_size,
    encode_image_features,
    encode_masks,
    enlarge,
    image_probabilities,
    segment_prompt,
    to_uint8,
)
from medimageparse_serving.image.report import (
    CATEGORIES,
    Category,
    MaskReport,
    Rejected,
    Segmented,
    build_report,
    describe_categories,
    describe_mask,
    describe_prompts,
)
from medimageparse_serving.prompts.request import Asked

TALL = Geometry(
    format="PNG",
    mode="RGB",
    pages=1,
    exif_orientation=1,
    height=37,
    width=20,
    side=37,
    top=0,
    left=8,
    intensity=Intensity("none", None, []),
    warnings=["nearly black"],
)


def random_logits(*shape):
    return np.random.default_rng(0).normal(0, 5, shape).astype(np.float32)


def decoded(image_features):
    """As clients of the Azure service do."""
    d = json.loads(image_features)
    return np.frombuffer(base64.b64decode(d["data"]), dtype=d["dtype"]).reshape(d["shape"])


@pytest.mark.parametrize("side", [1, 5, 16, 37, 64, 131, 200])
def test_enlarging_is_what_torch_does(side):
    logits = random_logits(16, 16)
    expected = torch.nn.functional.interpolate(torch.from_numpy(logits)[None, None], size=(side, side), mode="bilinear")
    found = enlarge(logits, side, range(side), range(side))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected[0, 0], atol=1e-4)  # torch computes positions in FP32; 2e-5 seen
    rows, columns = range(side // 3, side), range(side // 4, side // 4 + 1)
    part = enlarge(logits, side, rows, columns)
    assert np.array_equal(part, found[rows.start : rows.stop, columns.start : columns.stop])


def test_the_padding_is_cut_off():
    logits = random_logits(16, 16)
    square = torch.nn.functional.interpolate(torch.from_numpy(logits)[None, None], size=(37, 37), mode="bilinear")
    expected = square[0, 0].sigmoid().numpy()
    for geometry, crop in (
        (TALL, np.s_[:, 8:28]),
        (replace(TALL, height=20, width=37, top=8, left=0), np.s_[8:28]),
    ):
        np.testing.assert_allclose(image_probabilities(logits, geometry), expected[crop], atol=1e-5)


def test_8_bits_keep_the_threshold():
    near = 0.5 + np.arange(-100, 101) * 2.0**-25
    probabilities = np.concatenate([near, np.linspace(0, 1, 9999), [0, 1]]).astype(np.float32)
    values = to_uint8(probabilities, probabilities > 0.5)
    assert values.dtype == np.uint8
    assert np.array_equal(values > 127.5, probabilities > 0.5)
    assert values[-2:].tolist() == [0, 255]
    assert np.abs(values / 255 - probabilities).max() <= 0.5 / 255 + 1e-6
    lost = to_uint8(probabilities, np.zeros(len(probabilities), np.bool_))
    assert lost.max() == 127
    assert np.array_equal(lost[values < 128], values[values < 128])


def finding(logits):
    return range(len(logits)), lambda prompt: segment_prompt(logits[prompt], TALL)


def test_each_prompt_has_its_mask():
    logits = random_logits(3, 16, 16)
    masks, described = encode_masks(*finding(logits), TALL, "probabilities")
    probabilities = np.stack([image_probabilities(x, TALL) for x in logits])
    assert (masks.shape, masks.dtype) == ((3, 37, 20), np.uint8)
    assert np.array_equal(masks > 127.5, probabilities > 0.5)
    binary, again = encode_masks(*finding(logits), TALL, "masks")
    assert np.array_equal(binary, probabilities > 0.5)
    assert described == again
    assert [mask.area_pixels for mask in described.values()] == binary.sum((1, 2)).tolist()
    assert described[1].highest_probability == pytest.approx(probabilities[1].max(), abs=1e-6)
    assert np.array_equal(decoded(encode_image_features(masks)), masks)


def test_nothing_found_is_an_answer_too():
    masks, described = encode_masks(*finding([]), TALL, "probabilities")
    assert described == {}
    assert decoded(encode_image_features(masks)).shape == (0, 37, 20)


def test_only_as_many_prompts_are_in_memory_as_are_computed_at_a_time():
    logits, made, in_memory = random_logits(9, 16, 16), [], []

    def find(prompt):
        probabilities, mask = segment_prompt(logits[prompt], TALL)
        made.append(weakref.ref(probabilities))
        in_memory.append(sum(each() is not None for each in made))
        return probabilities, mask

    encode_masks(range(9), find, TALL, "probabilities")
    assert max(in_memory) <= AT_A_TIME


def test_what_goes_wrong_with_a_prompt_ends_the_request():
    def find(prompt):
        raise MemoryError(prompt)

    with pytest.raises(MemoryError, match="0"):
        encode_masks(range(9), find, TALL, "probabilities")


def test_area_and_box():
    mask, probabilities = np.zeros((7, 9), np.bool_), np.zeros((7, 9), np.float32)
    probabilities[0, 0] = 0.25
    assert describe_mask(mask, probabilities) == MaskReport(False, 0, None, 0.25)
    mask[2, 3] = mask[5, 8] = True
    probabilities[5, 8] = 0.75
    assert describe_mask(mask, probabilities) == MaskReport(True, 2, [[2, 3], [5, 8]], 0.75)


def test_categories():
    logits = np.full((2, 17), -100, np.float32)
    logits[0, [3, 16]] = 10, 10 + np.log(3)  # background is likelier, and is not the answer
    logits[1, 15] = 300
    assert describe_categories(logits) == [
        Category("pancreas", category_confidence=0.25, background_confidence=0.75),
        Category("other", category_confidence=1.0, background_confidence=0.0),
    ]
    assert len(set(CATEGORIES)) == 16
    assert (*CATEGORIES, "background") == CLASSES  # what the networks' columns are


def test_size_limit():
    check_size(4, TALL, 4 * 37 * 20)
    with pytest.raises(ValueError, match="5 masks of 37 x 20 pixels are more than 2960 bytes; send fewer prompts"):
        check_size(5, TALL, 4 * 37 * 20)


def test_report():
    tensors = {
        "category_logits": np.eye(3, 17, dtype=np.float32),
        "matched_queries": np.array([7, 8, 9]),
        "similarities": np.array([0.5, 0.25, 0.125], np.float32),
        "truncated": np.array([False, False, True]),
    }
    masks = {2: MaskReport(False, 0, None, 0.25), 0: MaskReport(True, 1, [[3, 4], [3, 4]], 0.75)}  # in the order found
    described = describe_prompts(masks, ["a", "b", "c"], [None, 0.5, 0.0], tensors)
    assert [(p.text, p.present, p.matched_query, p.similarity) for p in described] == [
        ("c", False, 9, 0.125),
        ("a", True, 7, 0.5),
    ]
    assert [(p.category, p.p_value, p.truncated) for p in described] == [
        ("kidney", 0.0, True),
        ("liver", None, False),
    ]
    asked, rejected = Asked("OCT", recognize=True, joint=False), [Rejected("b", 0.5, "too low")]
    report = asdict(build_report(described, rejected, 0.05, TALL, asked, Segmented({"variant": "TINY"}), "masks"))
    assert json.loads(json.dumps(report)) == report
    assert report["image"] == {
        "format": "PNG",
        "mode": "RGB",
        "pages": 1,
        "exif_orientation": 1,
        "height": 37,
        "width": 20,
        "side": 37,
        "top": 0,
        "left": 8,
        "intensity": {"used": "none", "bounds": None, "padding": []},
        "tiles": 1,
        "output": "masks",
    }
    assert report["warnings"] == ["nearly black"]
    assert (report["image_type"], report["joint"], report["p_value_threshold"]) == ("OCT", False, 0.05)
    assert report["networks"] == {"variant": "TINY"}
    assert report["rejected"] == [{"text": "b", "p_value": 0.5, "reason": "too low"}]
