"""The files that a run leaves in its folder."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medimageparse_client.cli.console import WrongCommandLine
from medimageparse_client.evaluate.answers import Answers
from medimageparse_client.evaluate.cases import Case, Sentences
from medimageparse_client.evaluate.pictures import box_plot, worst_cases
from medimageparse_client.evaluate.records import Record
from medimageparse_client.evaluate.report import cases_csv, labels_csv, report
from medimageparse_client.evaluate.summary import Summary
from medimageparse_client.files import write_file

TABLES = ("summary.json", "report.md", "cases.csv", "labels.csv", "structures.png", "worst")
COMPARISON = ("comparison.json", "comparison.md")


def check_free(folder: Path, names: Iterable[str]) -> None:
    """Raises WrongCommandLine if the folder has one of these already."""
    if there := [name for name in names if (folder / name).exists()]:
        raise WrongCommandLine(f"{folder / there[0]} exists already; --force writes over it, or name another folder")


def write_comparison(out: Path, comparison: Mapping[str, Any], report: str) -> None:
    write_json(out / "comparison.json", comparison)
    write_file(out / "comparison.md", report.encode())


def write_tables(out: Path, summary: Summary, records: Sequence[Record]) -> None:
    """summary.json, report.md, cases.csv, labels.csv and structures.png."""
    write_json(out / "summary.json", summary.as_json())
    write_file(out / "report.md", report(summary).encode())
    write_file(out / "cases.csv", cases_csv(records).encode())
    write_file(out / "labels.csv", labels_csv(records).encode())
    box_plot(records, out / "structures.png")


def write_pictures(
    out: Path, records: Sequence[Record], cases: Sequence[Case], answers: Answers, sentences: Sentences, n: int
) -> None:
    """worst/: the `n` cases of the lowest scores, which are asked once more."""
    if n > 0:
        (out / "worst").mkdir(exist_ok=True)
        worst_cases(records, cases, answers, sentences, n, out / "worst")


def write_json(path: Path, value: Any) -> None:
    write_file(path, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
