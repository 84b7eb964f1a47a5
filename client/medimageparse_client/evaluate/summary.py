"""Everything that a run found, as `summary.json`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medimageparse_client.evaluate import image_tables, volume_tables
from medimageparse_client.evaluate.layouts import Layout
from medimageparse_client.evaluate.numbers import Number, Resampling, Table, done
from medimageparse_client.evaluate.records import Record, without_nan
from medimageparse_client.evaluate.volume_layouts import AMOS_LABELS


@dataclass(frozen=True)
class Summary:
    """
    settings: what the answers depend on, the networks among them
    tables: title -> table
    cases: name -> metric -> value of each case that was answered, for comparing runs
    failures: name -> the sentence that says why
    omitted: what a complete run would have covered besides
    """

    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    n_cases: int
    tables: Mapping[str, Table]
    cases: Mapping[str, Mapping[str, float]]
    failures: Mapping[str, str]
    omitted: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        tables = {
            title: {
                row: {column: number_json(number) for column, number in line.items()} for row, line in table.items()
            }
            for title, table in self.tables.items()
        }
        entry = {
            "settings": dict(self.settings),
            "versions": dict(self.versions),
            "n_cases": self.n_cases,
            "n_answered": len(self.cases),
            "failures": dict(self.failures),
            "omitted": list(self.omitted),
            "tables": tables,
            "cases": {name: dict(metrics) for name, metrics in self.cases.items()},
        }
        result: dict[str, Any] = without_nan(entry)
        return result


def number_json(number: Number) -> dict[str, Any]:
    entry: dict[str, Any] = {"value": number.value, "n": number.n}
    if number.interval is not None:
        entry["interval"] = list(number.interval)
    if number.card is not None:
        entry |= {"card": number.card, "difference": number.difference, "verdict": number.verdict}
    return entry


def summarise(
    records: Sequence[Record],
    layout: Layout,
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
    draw: Resampling,
    *,
    p_value: float,
    omitted: Sequence[str] = (),
) -> Summary:
    """The tables of a layout; those without a row are left out."""
    tables = images(records, draw, p_value) if layout == "biomedparse" else volumes(records, draw, layout)
    answered = done(records)
    return Summary(
        settings=settings,
        versions=versions,
        n_cases=len(records),
        tables={title: table for title, table in tables.items() if table},
        cases={r.name: {k: v for k, v in r.metrics.items() if not math.isnan(v)} for r in answered},
        failures={record.name: record.error for record in records if record.state == "failed"},
        omitted=omitted,
    )


def volumes(records: Sequence[Record], draw: Resampling, layout: Layout) -> dict[str, Table]:
    organs = volume_tables.of_organs(records, AMOS_LABELS, draw) if layout == "amos22" else {}
    return {
        "Organs, Dice in percent": organs,
        "Modalities": volume_tables.of_modalities(records, draw, with_card=layout == "challenge"),
        "Modalities, a failed case counted as 0": volume_tables.with_failures_as_0(records),
        "Data sets": volume_tables.of_data_sets(records, draw),
        "Structures": volume_tables.of_structures(records, draw),
        "Existence": volume_tables.existence(records),
        "Existence by prompt": volume_tables.existence_by_prompt(records),
    }


def images(records: Sequence[Record], draw: Resampling, p_value: float) -> dict[str, Table]:
    return {
        "Modalities, Dice": image_tables.image_modalities(records, draw),
        "Totals by data set, in percent": image_tables.image_totals(records),
        "Tasks": image_tables.image_tasks(records, draw),
        "Absence": image_tables.image_absence(records, p_value),
    }
