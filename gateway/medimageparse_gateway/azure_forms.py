"""The body of /score -> rows of image and prompts: every form of a table that Azure's clients send."""

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from medimageparse_gateway.azure_base64 import decode_base64
from medimageparse_gateway.errors import HttpError

MAX_ROWS = 256
# of lists, objects and their members: each costs Python a hundred bytes, and a table of 256 rows has few
MAX_PARTS = 2**20
IMAGE, TEXT = "image", "text"
SCORE_KEYS = ("input_data", "dataframe_split", "dataframe_records")

NO_JSON = "the body is not JSON; send an object with input_data"
NO_OBJECT = "the body is not a JSON object; send one with input_data"
TOO_MANY_PARTS = "the body has too many lists, objects and members; send only the rows"
NO_TABLE = "{} is not a table; send an object with columns and data"


@dataclass(frozen=True)
class Row:
    """image: the file's bytes; text: prompts separated by &, as sent."""

    image: bytes
    text: str


@dataclass(frozen=True)
class ScoreRequest:
    """params: any JSON value, as sent, or None."""

    rows: list[Row]
    params: Any


def read_score(body: bytearray) -> ScoreRequest:
    """The rows of a body of /score, which is empty afterwards. Raises HttpError."""
    content = read_object(body)
    key = next((key for key in SCORE_KEYS if key in content), None)
    if key is None:
        raise HttpError(400, "input_data is missing; send an object with input_data")
    return ScoreRequest(read_rows(content[key], key), content.get("params"))


def read_object(body: bytearray) -> dict[str, Any]:
    refuse_many_parts(body)
    if body.startswith(codecs.BOM_UTF8):  # PowerShell writes one
        del body[: len(codecs.BOM_UTF8)]
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise HttpError(400, NO_JSON) from None
    body.clear()  # a gigabyte, maybe: before the files are decoded
    if not isinstance(content, dict):
        raise HttpError(400, NO_OBJECT)
    return content


def refuse_many_parts(body: bytearray) -> None:
    """Base64 has none of these characters, so that files of any size pass."""
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > MAX_PARTS:
        raise HttpError(400, TOO_MANY_PARTS)


def read_rows(table: Any, key: str) -> list[Row]:
    """A table in any of its forms, which stood under that key of the body."""
    if isinstance(table, list):
        cells = cells_of_records(table)
    elif isinstance(table, dict) and "data" in table:
        cells = cells_of_split(table)
    elif isinstance(table, dict):
        cells = cells_of_columns(table)
    else:
        raise HttpError(400, NO_TABLE.format(key))
    return [read_row(number, image, text) for number, (image, text) in enumerate(cells)]


def cells_of_split(table: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """{"columns": ["image", "text"], "data": [[image, text], ...]}; an index is not looked at."""
    columns, data = table.get("columns"), table["data"]
    if not isinstance(columns, list):
        raise HttpError(400, "columns is missing or not a list; send the names of the columns, image and text")
    if not isinstance(data, list):
        raise HttpError(400, "data is not a list; send a list of rows")
    image, text = (place_of(name, columns) for name in (IMAGE, TEXT))
    check_number(data)
    for number, row in enumerate(data):
        if not isinstance(row, list):
            raise HttpError(400, f"row {number} is not a list; send one value for each column")
        if len(row) != len(columns):
            sentence = f"row {number} has {len(row)} values for {len(columns)} columns; send one for each column"
            raise HttpError(400, sentence)
        yield row[image], row[text]


def place_of(name: str, columns: list[Any]) -> int:
    if columns.count(name) > 1:
        raise HttpError(400, f"there are {columns.count(name)} columns {name}; send one")
    if name not in columns:
        raise HttpError(400, f"there is no column {name}; send the columns image and text, in small letters")
    return columns.index(name)


def cells_of_records(records: list[Any]) -> Iterator[tuple[Any, Any]]:
    """[{"image": image, "text": text}, ...]"""
    check_number(records)
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise HttpError(400, f"row {number} is not an object; send one with image and text")
        for name in (IMAGE, TEXT):
            if name not in record:
                raise HttpError(400, f"row {number} has no {name}; send image and text, in small letters")
        yield record[IMAGE], record[TEXT]


def cells_of_columns(table: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """{"image": [image, ...], "text": [text, ...]}"""
    for name in (IMAGE, TEXT):
        place_of(name, list(table))
        if not isinstance(table[name], list):
            raise HttpError(400, f"column {name} is not a list; send one value for each row")
    images, texts = table[IMAGE], table[TEXT]
    if len(images) != len(texts):
        sentence = f"column image has {len(images)} values and column text has {len(texts)}; send one of each a row"
        raise HttpError(400, sentence)
    check_number(images)
    yield from zip(images, texts, strict=True)


def check_number(rows: list[Any]) -> None:
    if len(rows) > MAX_ROWS:
        raise HttpError(400, f"there are {len(rows)} rows; send at most {MAX_ROWS} in one request")


def read_row(number: int, image: Any, text: Any) -> Row:
    for name, value in ((IMAGE, image), (TEXT, text)):
        if not isinstance(value, str):
            sentence = f"row {number}: {name} is {'null' if value is None else 'not a string'}; send a string"
            raise HttpError(400, sentence)
    try:
        return Row(decode_base64(image), text)
    except ValueError as error:
        raise HttpError(400, f"row {number}: {error}") from None
