"""Bodies that nobody thought of: rows, or a 400 with a sentence, and nothing else."""

import json
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medimageparse_gateway.azure_forms import Row, read_score
from medimageparse_gateway.azure_mlflow import read_csv, read_invocation
from medimageparse_gateway.errors import HttpError

same_each_time = partial(settings, derandomize=True, database=None, deadline=None)

KEYS = st.sampled_from(
    ["input_data", "dataframe_split", "dataframe_records", "inputs", "instances", "columns", "index", "data", "params"]
)
NAMES = st.sampled_from(["image", "text", "Image", "", "0"])
BASE64 = st.sampled_from(["QUJD", "QUI=", "QQ==\n", "", "QUJ", "=", "data:,QUJD", "_-8=", " QU JD "])
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | BASE64
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | NAMES | st.text(), inner, max_size=4),
    max_leaves=20,
)
TABLES = st.fixed_dictionaries(
    {
        "columns": st.lists(NAMES, max_size=4) | VALUES,
        "data": st.lists(st.lists(SCALARS, max_size=4), max_size=4) | VALUES,
    }
)
BODIES = st.dictionaries(KEYS, TABLES | VALUES, max_size=3) | VALUES


def assert_rows_or_400(read, body):
    refused = None
    try:
        rows = read(bytearray(body)).rows
    except HttpError as error:
        refused = error
    if refused:
        assert refused.status == 400
        assert 10 < len(refused.sentence) < 200
    else:
        assert all(isinstance(row, Row) and row.image for row in rows)


@pytest.mark.parametrize("read", [read_score, read_invocation])
@same_each_time(max_examples=200)
@given(body=BODIES)
def test_any_json_is_rows_or_a_400(read, body):
    assert_rows_or_400(read, json.dumps(body).encode())


@pytest.mark.parametrize("read", [read_score, read_invocation, read_csv])
@same_each_time(max_examples=100)
@given(body=st.binary(max_size=200))
def test_any_bytes_are_rows_or_a_400(read, body):
    assert_rows_or_400(read, body)


@same_each_time(max_examples=100)
@given(head=st.lists(NAMES, max_size=4), cells=st.lists(st.lists(BASE64 | st.text(max_size=9), max_size=4), max_size=4))
def test_any_csv_is_rows_or_a_400(head, cells):
    lines = [",".join(json.dumps(cell, ensure_ascii=False) for cell in line) for line in [head, *cells]]
    assert_rows_or_400(read_csv, "\n".join(lines).encode(errors="replace"))
