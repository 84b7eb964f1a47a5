import json

import numpy as np
import pytest
from helpers.places import SHARED
from medimageparse_serving.prompts.clip_tokenizer import decode_text, split_prompts, tokenize

GOLDEN = SHARED / "golden" / "clip_tokens.json"


def test_equals_the_original_tokenizer():
    if not GOLDEN.exists():
        pytest.skip("../shared/golden/clip_tokens.json is not on this machine")
    cases = json.loads(GOLDEN.read_text())["prompts"]
    input_ids, attention_mask, truncated = tokenize([case["text"] for case in cases])
    np.testing.assert_array_equal(input_ids, [case["input_ids"] for case in cases])
    np.testing.assert_array_equal(attention_mask, [case["attention_mask"] for case in cases])
    assert truncated.sum() == 1
    assert len(cases) == 40


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("liver", [12639]),
        ("RIGHT   kidney ", [1155, 14610]),
        ("liver & tumor", [12639, 261, 22616]),
        ("Whole-body FDG-PET lesion", [2954, 268, 1774, 69, 9742, 268, 3703, 534, 1015]),
        ("“quoted”", [257, 27706, 257]),
        ("", []),
    ],
)
def test_token_ids(prompt, ids):
    input_ids, attention_mask, truncated = tokenize([prompt])
    assert input_ids.tolist() == [[49406, *ids, 49407]]
    assert attention_mask.all()
    assert not truncated.any()


def test_padding_to_the_longest_prompt():
    input_ids, attention_mask, _ = tokenize(["liver", "left kidney"])
    assert input_ids.tolist() == [[49406, 12639, 49407, 49407], [49406, 1823, 14610, 49407]]
    assert attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert input_ids.dtype == attention_mask.dtype == np.int64


@pytest.mark.parametrize(("words", "is_cut"), [(74, False), (75, False), (76, True), (300, True)])
def test_cut_to_77_tokens(words, is_cut):
    input_ids, _, truncated = tokenize(["liver " * words, "liver"])
    assert input_ids.shape == (2, min(words + 2, 77))
    assert input_ids[0, -1] == 49407
    assert truncated.tolist() == [is_cut, False]


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("liver", ["liver"]),
        (" liver &left kidney\n& spleen ", ["liver", "left kidney", "spleen"]),
        ("liver&liver", ["liver", "liver"]),
        ("grey &amp; white matter & tumor", ["grey & white matter", "tumor"]),
        ("nodule &lt; 5 mm & the patient&#39;s aorta", ["nodule < 5 mm", "the patient's aorta"]),
        ("liver &spleen; &#x; kidney", ["liver", "spleen;", "#x; kidney"]),
    ],
)
def test_split(text, prompts):
    assert split_prompts(text, max_prompts=4) == prompts


@pytest.mark.parametrize("text", ["liver & ", "& liver", "liver && spleen", "liver & \x00 & spleen"])
def test_an_empty_prompt_is_refused(text):
    with pytest.raises(ValueError, match=r"^prompt [123] of [23] is empty"):
        split_prompts(text, max_prompts=4)


@pytest.mark.parametrize("text", ["", "  \n", "&", " & & "])
def test_no_prompt_is_refused(text):
    with pytest.raises(ValueError, match="no prompt"):
        split_prompts(text, max_prompts=4)


def test_limits():
    with pytest.raises(ValueError, match="5 prompts; send at most 4"):
        split_prompts("a&b&c&d&e", max_prompts=4)
    with pytest.raises(ValueError, match="101 characters; send at most 100") as error:
        split_prompts("secret " * 14 + "abc", max_prompts=4, max_characters=100)
    assert "secret" not in str(error.value)
    with pytest.raises(ValueError, match="401 bytes; send at most 100 characters"):
        decode_text(b"\xff" * 401, max_characters=100)  # refused before it is decoded


def test_an_escape_of_thousands_of_digits_is_refused():
    with pytest.raises(ValueError, match="HTML escape that is no character"):
        split_prompts("liver & &#" + "9" * 5000 + ";", max_prompts=4)


def test_not_utf8_is_refused():
    assert decode_text("肝脏".encode()) == "肝脏"
    with pytest.raises(ValueError, match="not UTF-8"):
        decode_text(b"liver \xff")
