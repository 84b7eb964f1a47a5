"""What a cohort gave, as tables: one row a structure, one a case, one a failure. CSV, and Parquet where pyarrow is.

They are made of the records, so that they say what lies there, whichever runs and shards left it.
"""

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medimageparse_client.cohort.case import Case
from medimageparse_client.cohort.records import Records, Reported
from medimageparse_client.files import replacing

Row = dict[str, Any]
# column -> its type in Parquet
SUMMARY = {
    "id": "string",
    "file": "string",
    "structure": "string",  # the catalogue's id or name where one was asked for, else the prompt
    "prompt": "string",
    "label": "int32",
    "present": "bool",
    "why_absent": "string",
    "volume_ml": "float64",
    "voxels": "int64",
    "highest_score": "float64",
    "seconds": "float64",
}
CASES = {
    "id": "string",
    "file": "string",
    "input_sha256": "string",
    "request": "string",
    "output": "string",
    "output_sha256": "string",
    "networks": "string",
    "seconds": "float64",
}
FAILED = {"id": "string", "file": "string", "kind": "string", "reason": "string", "tries": "int32"}
ROWS_AT_ONCE = 10_000  # of a Parquet file's groups


@dataclass
class Sums:
    """
    failed: kind -> cases
    networks: of which the results are
    """

    done: int = 0
    left: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    networks: set[str] = field(default_factory=set)


def write_tables(folder: Path, suffix: str, cases: Sequence[Case], records: Records) -> Sums:
    """Writes summary, cases and failed into the folder, each whole or not at all."""
    sums = Sums()
    with ExitStack() as stack:
        summary, done, failed = (
            stack.enter_context(table(folder / f"{name}{suffix}", columns))
            for name, columns in (("summary", SUMMARY), ("cases", CASES), ("failed", FAILED))
        )
        for case in cases:
            if failure := records.failure(case):
                sums.failed[failure.kind] = sums.failed.get(failure.kind, 0) + 1
                failed.add(asdict(failure))
            elif told := records.reported(case):
                networks = networks_of(told)
                sums.done += 1
                sums.networks.add(networks)
                done.add(asdict(told.cohort) | {"networks": networks})
                for row in rows_of(told):
                    summary.add(row)
            else:
                sums.left += 1
    return sums


def networks_of(told: Reported) -> str:
    """A short name of the networks that answered, by checkpoint and graphs; equal for equal ones."""
    return hashlib.sha256(json.dumps(told.networks, sort_keys=True).encode()).hexdigest()[:12]


def rows_of(told: Reported) -> Iterator[Row]:
    of_case = {"id": told.cohort.id, "file": told.cohort.file, "seconds": told.cohort.seconds}
    for label, found in enumerate(told.prompts, start=1):
        asked = found.get("asked") or found.get("id") or found["text"]
        yield of_case | found | {"structure": asked, "prompt": found["text"], "label": label} | of_case


class Table:
    """A CSV file and perhaps a Parquet file that get the same rows; columns: name -> type."""

    def __init__(self, columns: dict[str, str], lines: Any, parquet: Any) -> None:
        self.columns, self._parquet = columns, parquet
        self._csv = csv.DictWriter(lines, list(columns), extrasaction="ignore", lineterminator="\n")
        self._csv.writeheader()
        self._waiting: list[Row] = []

    def add(self, row: Row) -> None:
        cells = {name: row.get(name) for name in self.columns}
        self._csv.writerow({name: json.dumps(cell) if isinstance(cell, bool) else cell for name, cell in cells.items()})
        if self._parquet:
            self._waiting.append({name: in_unicode(cell) for name, cell in cells.items()})
            if len(self._waiting) == ROWS_AT_ONCE:
                self.flush()

    def flush(self) -> None:
        if self._parquet and self._waiting:
            import pyarrow

            self._parquet.write_table(pyarrow.Table.from_pylist(self._waiting, self._parquet.schema))
            self._waiting = []


@contextmanager
def table(path: Path, columns: dict[str, str]) -> Iterator[Table]:
    """`path` without its ending; the files are there when the block ends."""
    with ExitStack() as stack:
        # not with_suffix: an ending may be part of the name
        lines = stack.enter_context(replacing(path.parent / f"{path.name}.csv"))
        stream = stack.enter_context(lines.open("w", encoding="utf-8", errors="surrogateescape", newline=""))
        parquet = None
        if has_parquet():
            import pyarrow
            import pyarrow.parquet

            place = stack.enter_context(replacing(path.parent / f"{path.name}.parquet"))
            schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in columns.items()])
            parquet = stack.enter_context(pyarrow.parquet.ParquetWriter(place, schema))
        made = Table(columns, stream, parquet)
        yield made
        made.flush()


def has_parquet() -> bool:
    """Whether there is a pyarrow that this numpy will do for."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True


def in_unicode(cell: object) -> object:
    """A file's name may hold bytes that are no Unicode, and Parquet's texts may not."""
    return cell.encode(errors="surrogateescape").decode(errors="replace") if isinstance(cell, str) else cell
