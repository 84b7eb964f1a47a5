"""What mlflow's own server takes at /invocations."""

import base64
import csv
import io
import json

import pytest
from medimageparse_gateway.azure_forms import Row
from medimageparse_gateway.azure_mlflow import read_csv, read_invocation
from medimageparse_gateway.errors import HttpError

FILE = bytes(range(200)) * 10
IMAGE = base64.encodebytes(FILE).decode()
ROWS = [Row(FILE, 'liver, "left" & spleen'), Row(FILE, "tumor")]
RECORDS = [{"image": IMAGE, "text": row.text} for row in ROWS]
SPLIT = {"columns": ["image", "text"], "data": [[IMAGE, row.text] for row in ROWS]}
COLUMNS = {"image": [IMAGE, IMAGE], "text": [row.text for row in ROWS]}


def read(content):
    return read_invocation(bytearray(json.dumps(content).encode()))


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_split": SPLIT},
        {"dataframe_records": RECORDS},
        {"inputs": COLUMNS},
        {"inputs": RECORDS},
        {"instances": RECORDS},
        {"instances": COLUMNS},
    ],
)
def test_each_of_mlflows_forms_is_taken(content):
    assert read(content).rows == ROWS
    assert read(content | {"params": {"joint": False}}).params == {"joint": False}


@pytest.mark.parametrize(
    "content",
    [{"input_data": SPLIT}, {}, {"inputs": COLUMNS, "instances": RECORDS}, {"dataframe_split": SPLIT, "inputs": []}],
)
def test_another_number_of_forms_than_one_is_refused(content):
    with pytest.raises(HttpError, match="exactly one of dataframe_split, dataframe_records, inputs, instances"):
        read(content)


def written(rows, **options):
    text = io.StringIO()
    csv.writer(text, **options).writerows(rows)
    return bytearray(text.getvalue().encode())


@pytest.mark.parametrize("options", [{}, {"lineterminator": "\n"}, {"quoting": csv.QUOTE_ALL}])
def test_csv_is_taken_as_pandas_writes_it_with_its_unnamed_index(options):
    lines = [["", "image", "text"], *([n, IMAGE, row.text] for n, row in enumerate(ROWS))]
    assert read_csv(written(lines, **options)).rows == ROWS
    assert read_csv(bytearray(b"\xef\xbb\xbf") + written(lines, **options) + b"\n").rows == ROWS


def test_an_image_of_a_megabyte_fits_into_a_field_of_csv():
    large = base64.b64encode(FILE * 1000).decode()
    [row] = read_csv(written([["text", "image"], ["liver", large]])).rows
    assert row == Row(FILE * 1000, "liver")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not CSV"),
        (b"\n\n", "not CSV"),
        (b"image,text\n\xff,liver\n", "not CSV"),
        (b"image;text\nQUJD;liver\n", "no column image"),
        (b"image\nQUJD\n", "no column text"),
        (b"image,text\nQUJD\n", "row 0 has 1 values for 2 columns"),
        (b"image,text\nQUJD,liver\n,spleen\n", "row 1: image is empty"),
        (b"image,text\n" + b"QUJD,liver\n" * 257, "at most 256"),
        (b"," * 2**21, "too many"),
    ],
)
def test_csv_that_is_no_table_is_refused(body, words):
    with pytest.raises(HttpError) as refused:
        read_csv(bytearray(body))
    assert refused.value.status == 400
    assert words in refused.value.sentence


def test_csv_with_a_head_alone_has_no_rows():
    assert read_csv(bytearray(b"image,text\n")).rows == []
