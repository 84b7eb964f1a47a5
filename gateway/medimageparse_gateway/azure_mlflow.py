"""The bodies of /invocations, as mlflow's own server takes them."""

import csv
import io
import sys

from medimageparse_gateway.azure_forms import ScoreRequest, read_object, read_rows, refuse_many_parts
from medimageparse_gateway.errors import HttpError

TABLES = ("dataframe_split", "dataframe_records", "inputs", "instances")
NOT_ONE = f"the body must have exactly one of {', '.join(TABLES)}"
NO_CSV = "the body is not CSV in UTF-8 with a line of column names; send the columns image and text"

csv.field_size_limit(sys.maxsize)  # an image is one field; the limit of the body holds


def read_invocation(body: bytearray) -> ScoreRequest:
    """The rows of a JSON body. Raises HttpError."""
    content = read_object(body)
    keys = [key for key in TABLES if key in content]
    if len(keys) != 1:
        raise HttpError(400, NOT_ONE)
    return ScoreRequest(read_rows(content[keys[0]], keys[0]), content.get("params"))


def read_csv(body: bytearray) -> ScoreRequest:
    """The rows of a CSV body with a head line, as `DataFrame.to_csv` writes it. Raises HttpError."""
    refuse_many_parts(body)
    lines = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8-sig", newline="")
    body.clear()
    try:
        columns, *data = [line for line in csv.reader(lines) if line]
    except (ValueError, csv.Error):
        raise HttpError(400, NO_CSV) from None
    return ScoreRequest(read_rows({"columns": columns, "data": data}, "the body"), None)
