"""The record of a case, and the file that a run continues from (`evaluation.md`, section 8)."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

Kind: TypeAlias = Literal["semantic", "instance", "image"]
NAN = float("nan")


@dataclass(frozen=True)
class Row:
    """One prompt of a case.

    truth, predicted, common: voxels or pixels of the true mask, of the answer, and of both
    is_scored: whether its overlap counts officially; natural and added negatives do not
    score: 3D: the highest slice score; 2D: the mean probability in the mask
    slices: 3D: slices with (true, false) positives and (false, true) negatives: tp, fp, fn, tn
    """

    label: int
    task: str
    prompt: str
    is_present: bool
    is_found: bool
    is_scored: bool
    truth: int = 0
    predicted: int = 0
    common: int = 0
    nsd: float = NAN
    nsd_array_order: float = NAN
    score: float = NAN
    slices: tuple[int, int, int, int] | None = None
    p_value: float = NAN
    category: str = ""
    has_right_category: bool | None = None

    @property
    def dsc(self) -> float:
        """Dice; NaN if both masks are empty."""
        total = self.truth + self.predicted
        return 2 * self.common / total if total else NAN


@dataclass(frozen=True)
class Record:
    """What became of a case: its metrics and rows, or the sentence that says why there are none."""

    name: str
    kind: Kind
    modality: str
    data_set: str
    state: Literal["done", "failed"]
    error: str = ""
    image_sha256: str = ""
    truth_sha256: str = ""
    seconds: float = NAN
    metrics: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    def to_json(self) -> str:
        return json.dumps(without_nan(asdict(self)), allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Raises ValueError, KeyError or TypeError for anything that `to_json` does not write."""
        entry = with_nan(json.loads(text), cls, but=("rows", "metrics"))
        entry["rows"] = tuple(Row(**row_of(row)) for row in entry["rows"])
        entry["metrics"] = {name: NAN if value is None else value for name, value in entry["metrics"].items()}
        return cls(**entry)


def row_of(entry: dict[str, Any]) -> dict[str, Any]:
    row = with_nan(entry, Row, but=("slices", "has_right_category"))
    return row | {"slices": None if row["slices"] is None else tuple(row["slices"])}


def with_nan(entry: dict[str, Any], kind: type, but: Iterable[str]) -> dict[str, Any]:
    """null is NaN again, where a number is meant."""
    names = {entry.name for entry in fields(kind) if entry.type in (float, "float")}
    names -= set(but)
    return {name: NAN if value is None and name in names else value for name, value in entry.items()}


def without_nan(value: Any) -> Any:
    """NaN is null in JSON."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


class OtherSettings(Exception):
    """The folder holds the results of other settings or of other networks."""


class Journal:
    """`cases.jsonl`: the settings in its first line, then a line a case, each written whole before the next.

    A second run reads what is done. A last line that was cut off is dropped.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.head = json.dumps({"settings": dict(settings)}, sort_keys=True, allow_nan=False)
        self.records: dict[str, Record] = {}
        self._file: TextIO | None = None

    def open(self, *, restart: bool) -> "Journal":
        """Reads what is done; raises OtherSettings unless it was done with these settings, or is to be forgotten."""
        lines = [] if restart or not self.path.exists() else whole_lines(self.path)
        if lines and lines[0] != self.head:
            raise OtherSettings(
                f"{self.path} was made with other settings or other networks; "
                "name another folder, or begin anew with --restart"
            )
        for line in lines[1:]:
            record = Record.from_json(line)
            self.records[record.name] = record
        self._rewrite()
        return self

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, record: Record) -> None:
        assert self._file is not None
        self.records[record.name] = record
        self._file.write(record.to_json() + "\n")
        self._file.flush()

    def is_answered(self, name: str) -> bool:
        """Whether a run before has answered a case; its files may have changed since."""
        return name in self.records and self.records[name].state == "done"

    def is_done(self, name: str, image_sha256: str, truth_sha256: str) -> bool:
        """Whether a case was answered with these files; one that failed is tried again."""
        record = self.records.get(name)
        hashes = (image_sha256, truth_sha256)
        return record is not None and self.is_answered(name) and (record.image_sha256, record.truth_sha256) == hashes

    def _rewrite(self) -> None:
        """The lines that count, in a new file that takes the place of the old one."""
        new = self.path.with_suffix(".partial")
        with new.open("w", encoding="utf-8") as file:
            file.write(self.head + "\n")
            file.writelines(record.to_json() + "\n" for record in self.records.values())
        os.replace(new, self.path)
        self._file = self.path.open("a", encoding="utf-8")


def whole_lines(path: Path) -> list[str]:
    text = path.read_bytes()
    return text[: text.rfind(b"\n") + 1].decode("utf-8").splitlines()


def digest(value: Any) -> str:
    """A short hash of what can be written as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
