"""The forms of a request: what becomes rows, and what is refused with the name of the column or the row."""

import base64
import codecs
import json

import pytest
from medimageparse_gateway.azure_forms import MAX_PARTS, MAX_ROWS, Row, read_score
from medimageparse_gateway.errors import HttpError

FILES = [b"first file", b"second file"]
IMAGES = [base64.encodebytes(FILES[0]).decode(), base64.b64encode(FILES[1]).decode()]
TEXTS = ["liver & spleen", "tumor"]
DATA = [list(row) for row in zip(IMAGES, TEXTS, strict=True)]
COLUMNS = ["image", "text"]
ROWS = [Row(*row) for row in zip(FILES, TEXTS, strict=True)]
TABLE = {"columns": COLUMNS, "index": [0, 1], "data": DATA}
RECORDS = [{"image": image, "text": text} for image, text in DATA]


def read(content):
    return read_score(bytearray(content if isinstance(content, bytes) else json.dumps(content).encode()))


@pytest.mark.parametrize("index", [[0, 1], None, ["a", "b"], [5, 3], [0, 0], 2, [0, 1, 2], [], "0", {"0": 1}, [None]])
def test_the_index_is_never_read(index):
    assert read({"input_data": TABLE | {"index": index}}).rows == ROWS


ACCEPTED = {
    "no index": {"input_data": {"columns": COLUMNS, "data": DATA}},
    "columns swapped": {"input_data": {"columns": COLUMNS[::-1], "data": [row[::-1] for row in DATA]}},
    "a further column": {"input_data": {"columns": ["", *COLUMNS], "data": [[0, *row] for row in DATA]}},
    "columns without names": {"input_data": {"columns": [None, *COLUMNS, 7], "data": [[0, *r, []] for r in DATA]}},
    "further keys beside": {"input_data": TABLE, "id": 7, "trace": {"a": [1]}},
    "further keys inside": {"input_data": TABLE | {"name": "x", "dtype": {}}},
    "records": {"input_data": RECORDS},
    "records with more": {"input_data": [{"n": 1, **record} for record in RECORDS]},
    "columns of values": {"input_data": {"image": IMAGES, "text": TEXTS}},
    "dataframe_split": {"dataframe_split": TABLE},
    "dataframe_records": {"dataframe_records": RECORDS},
    "indented": json.dumps({"input_data": TABLE}, indent=4).encode(),
    "a mark of UTF-8 before": codecs.BOM_UTF8 + json.dumps({"input_data": TABLE}).encode(),
    "blanks around": b"\n " + json.dumps({"input_data": TABLE}).encode() + b"\r\n",
}


@pytest.mark.parametrize("content", ACCEPTED.values(), ids=list(ACCEPTED))
def test_a_table_is_taken_in_each_of_its_forms(content):
    assert read(content).rows == ROWS


@pytest.mark.parametrize(
    "table",
    [{"columns": COLUMNS, "data": []}, [], {"image": [], "text": []}, {"columns": COLUMNS, "data": [], "index": []}],
)
def test_no_rows_are_no_fault(table):
    assert read({"input_data": table}).rows == []


@pytest.mark.parametrize("params", [None, {}, {"a": 1}, [1], "sitk", 7, True])
def test_params_are_handed_on_whatever_they_are(params):
    assert read({"input_data": TABLE, "params": params}).params == params
    assert read({"input_data": TABLE}).params is None


def with_cell(number, column, value):
    data = [list(row) for row in DATA]
    data[number][column] = value
    return {"input_data": {"columns": COLUMNS, "data": data}}


def with_columns(*columns):
    return {"input_data": {"columns": list(columns), "data": DATA}}


REFUSED = {
    "no image column": (with_columns("picture", "text"), "no column image"),
    "no text column": (with_columns("image", "prompt"), "no column text"),
    "Image": (with_columns("Image", "text"), "no column image"),
    "Text": (with_columns("image", "Text"), "no column text"),
    "image twice": (with_columns("image", "text", "image"), "2 columns image"),
    "no columns": ({"input_data": {"data": DATA}}, "columns is missing"),
    "columns a string": ({"input_data": {"columns": "image,text", "data": DATA}}, "columns is missing or not a list"),
    "columns null": ({"input_data": {"columns": None, "data": DATA}}, "columns is missing or not a list"),
    "data null": ({"input_data": {"columns": COLUMNS, "data": None}}, "data is not a list"),
    "data an object": ({"input_data": {"columns": COLUMNS, "data": {"0": DATA[0]}}}, "data is not a list"),
    "a row shorter": ({"input_data": {"columns": COLUMNS, "data": [DATA[0], DATA[1][:1]]}}, "row 1 has 1 values"),
    "a row longer": ({"input_data": {"columns": COLUMNS, "data": [DATA[0], [*DATA[1], 1]]}}, "row 1 has 3 values"),
    "a row empty": ({"input_data": {"columns": COLUMNS, "data": [[], DATA[1]]}}, "row 0 has 0 values"),
    "a row an object": ({"input_data": {"columns": COLUMNS, "data": RECORDS}}, "row 0 is not a list"),
    "a row a string": ({"input_data": {"columns": COLUMNS, "data": ["ab"]}}, "row 0 is not a list"),
    "image null": (with_cell(1, 0, None), "row 1: image is null"),
    "text null": (with_cell(1, 1, None), "row 1: text is null"),
    "image a number": (with_cell(0, 0, 3.5), "row 0: image is not a string"),
    "text a number": (with_cell(0, 1, 7), "row 0: text is not a string"),
    "text a list": (with_cell(0, 1, ["liver"]), "row 0: text is not a string"),
    "text true": (with_cell(0, 1, True), "row 0: text is not a string"),
    "image an object": (with_cell(1, 0, {"data": IMAGES[0]}), "row 1: image is not a string"),
    "image empty": (with_cell(1, 0, ""), "row 1: image is empty"),
    "image a path": (with_cell(1, 0, "./image.png"), "row 1: image is not base64"),
    "a data URL": (with_cell(1, 0, "data:image/png;base64," + IMAGES[0]), "row 1: image is a data URL"),
    "URL-safe": (with_cell(0, 0, "_-8="), "row 0: image is URL-safe base64"),
    "input_data a string": ({"input_data": json.dumps(TABLE)}, "input_data is not a table"),
    "input_data null": ({"input_data": None}, "input_data is not a table"),
    "input_data a number": ({"input_data": 1}, "input_data is not a table"),
    "input_data an empty object": ({"input_data": {}}, "no column image"),
    "no input_data": ({"data": DATA}, "input_data is missing"),
    "an empty object": ({}, "input_data is missing"),
    "a record without text": ({"input_data": [RECORDS[0], {"image": IMAGES[1]}]}, "row 1 has no text"),
    "a record without image": ({"input_data": [{"text": "liver"}]}, "row 0 has no image"),
    "a record with Image": ({"input_data": [{"Image": IMAGES[0], "text": "liver"}]}, "row 0 has no image"),
    "a record of null": ({"input_data": [None]}, "row 0 is not an object"),
    "records of lists": ({"input_data": DATA}, "row 0 is not an object"),
    "one image, no list": ({"input_data": {"image": IMAGES[0], "text": "liver"}}, "column image is not a list"),
    "columns uneven": ({"input_data": {"image": IMAGES, "text": ["liver"]}}, "2 values and column text has 1"),
    "columns of objects": ({"input_data": {"image": {"0": IMAGES[0]}, "text": {"0": "a"}}}, "image is not a list"),
    "too many rows": ({"input_data": {"columns": COLUMNS, "data": [DATA[0]] * (MAX_ROWS + 1)}}, "at most 256"),
    "too many records": ({"input_data": [RECORDS[0]] * (MAX_ROWS + 1)}, "at most 256"),
    "too many values": ({"input_data": {"image": IMAGES * 200, "text": TEXTS * 200}}, "at most 256"),
    "a list": ([TABLE], "not a JSON object"),
    "a string": (json.dumps("sitk").encode(), "not a JSON object"),
    "null": (b"null", "not a JSON object"),
    "empty": (b"", "not JSON"),
    "blank": (b" \n", "not JSON"),
    "not JSON": (b"image=1", "not JSON"),
    "cut short": (json.dumps({"input_data": TABLE}).encode()[:-2], "not JSON"),
    "two objects": (json.dumps({"input_data": TABLE}).encode() * 2, "not JSON"),
    "NaN": (json.dumps(with_cell(1, 1, float("nan"))).encode(), "not JSON"),
    "not UTF-8": (b'{"input_data": "\xff"}', "not JSON"),
    "UTF-16": (json.dumps({"input_data": TABLE}).encode("utf-16"), "not JSON"),
    "half a surrogate": (b'{"input_data": [{"image": "QUJD", "text": "\\ud800 liver"}]}', "not JSON"),
    "the other half": (b'{"input_data": [{"image": "QUJD", "text": "\\udc00"}]}', "not JSON"),
    "a number too large": (b'{"input_data": [], "params": ' + b"9" * 5000 + b"}", "not JSON"),
    "deep": (b"[" * 100_000, "not JSON"),
    "deep in params": (b'{"input_data": [], "params": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
    "a million lists": (b"[" + b"[]," * MAX_PARTS + b"[]]", "too many lists"),
    "a million members": (b'{"params": [' + b"1," * MAX_PARTS + b"1]}", "too many lists"),
}


@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=list(REFUSED))
def test_what_is_no_table_is_refused_with_the_place(content, words):
    with pytest.raises(HttpError) as refused:
        read(content)
    assert refused.value.status == 400
    assert words in refused.value.sentence


def test_no_refusal_says_what_was_sent():
    for content, _ in REFUSED.values():
        with pytest.raises(HttpError) as refused:
            read(content)
        assert not {"picture", "prompt", "sitk", "tumor"} & set(refused.value.sentence.split())


def test_the_largest_number_of_rows_is_taken():
    assert len(read({"input_data": {"columns": COLUMNS, "data": [DATA[0]] * MAX_ROWS}}).rows) == MAX_ROWS


def test_letters_of_all_scripts_arrive_as_they_were_sent():
    text = 'Leber ≥ 5 mm & 肝臓 & "🫀"\\/ \t'
    for body in (json.dumps([{"image": "QUJD", "text": text}], ensure_ascii=ascii) for ascii in (True, False)):
        [row] = read(b'{"input_data": ' + body.encode() + b"}").rows
        assert row.text == text


def test_the_body_is_given_up_before_the_files_are_decoded():
    body = bytearray(json.dumps({"input_data": TABLE}).encode())
    assert read_score(body).rows == ROWS
    assert not body
