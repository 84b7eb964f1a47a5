"""The file of numbers of a whole run: one row a prompt and file, as .csv, .tsv or .json."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from medimageparse_client.cli.console import WrongCommandLine
from medimageparse_client.files import write_file
from medimageparse_client.results.statistics import Row

DELIMITERS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (*DELIMITERS, ".json")


class Numbers:
    """The rows of a run, by file.

    noun: what the column is called that names the file
    goes_on: whether the rows that lie in `path` stay, those of files that are done again excepted
    """

    def __init__(self, path: Path, noun: str, goes_on: bool) -> None:
        self.path, self.noun = path, noun
        self._rows: dict[str, list[Row]] = {}
        if goes_on and path.exists():
            for row in read_rows(path):
                if noun not in row:
                    raise WrongCommandLine(f"{path}: this is no file of statistics of {noun}s; name another")
                self._rows.setdefault(str(row[noun]), []).append(row)

    def __contains__(self, source: object) -> bool:
        return str(source) in self._rows

    def add(self, source: object, rows: list[Row]) -> None:
        self._rows[str(source)] = [{self.noun: str(source)} | row for row in rows]

    def save(self) -> None:
        rows = [row for source in sorted(self._rows) for row in self._rows[source]]
        write_file(self.path, encode_rows(rows, self.path.suffix.lower()))


def encode_rows(rows: list[Row], ending: str) -> bytes:
    """In .csv and .tsv nothing stands for None, and a box is written as in JSON."""
    if ending == ".json":
        return json.dumps(rows, indent=2, ensure_ascii=False).encode() + b"\n"
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], delimiter=DELIMITERS[ending], lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: cell(value) for column, value in row.items()} for row in rows)
    return text.getvalue().encode(errors="surrogateescape")


def cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, bool | list | tuple) else value


def read_rows(path: Path) -> list[Row]:
    """What an earlier run left; OSError or WrongCommandLine for what it cannot have left."""
    text = path.read_text("utf-8", errors="surrogateescape")
    ending = path.suffix.lower()
    try:
        rows = json.loads(text) if ending == ".json" else list(csv.DictReader(io.StringIO(text), **dialect(ending)))
    except (ValueError, csv.Error):
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise WrongCommandLine(f"{path}: this is no file of statistics; name another")
    return rows


def dialect(ending: str) -> dict[str, Any]:
    return {"delimiter": DELIMITERS[ending]}
