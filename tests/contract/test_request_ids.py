"""Which ids of requests are taken, and how lines about requests are written."""

import json

import pytest
from medimageparse_contract.access_lines import BEGIN, JSON, TEXT, encode_line, now
from medimageparse_contract.request_ids import is_request_id, new_request_id, valid_or_none


@pytest.mark.parametrize("word", ["7", "a" * 64, "1.2:x_y-Z", "0f8fad5b-d9cb-469f-a165-70867728950e"])
def test_ids(word):
    assert is_request_id(word)
    assert valid_or_none(word) == word


@pytest.mark.parametrize("word", ["", "a" * 65, "Jane Doe", "a\n", "\na", "ä", "a/b", '"', "a=b", "²", "a,b"])
def test_words_that_are_no_ids(word):
    assert not is_request_id(word)
    assert valid_or_none(word) == ""


def test_made_ids_differ():
    made = {new_request_id() for _ in range(100)}
    assert len(made) == 100
    assert all(map(is_request_id, made))


def test_a_line_is_json_or_text():
    values = {"time": now(), "request_id": "", "model": "m", "milliseconds": 1.5, "words": 'two "words"\n'}
    as_json, as_text = encode_line(values, JSON), encode_line(values, TEXT)
    assert json.loads(as_json) == values
    assert as_text == f'time={values["time"]} request_id="" model=m milliseconds=1.5 words="two \\"words\\"\\n"'
    for line in (as_json, as_text):
        assert line.startswith(BEGIN)
        assert "\n" not in line
