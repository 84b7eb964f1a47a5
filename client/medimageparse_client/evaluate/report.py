"""`report.md` and the CSV files of a run."""

import csv
import io
import math
from collections.abc import Iterable, Sequence

from medimageparse_client.evaluate.numbers import Number, Table
from medimageparse_client.evaluate.records import Record, Row
from medimageparse_client.evaluate.summary import Summary
from medimageparse_client.evaluate.volume_tables import CASE_METRICS

OFFICIAL = ("DSC", "NSD", "F1", "DSC_TP")  # with the name and the time, the columns of the official file
LABEL_COLUMNS = (
    *("case", "modality", "data_set", "label", "task", "prompt", "truth", "predicted", "common", "DSC", "NSD"),
    *("NSD_array_order", "present", "found", "score", "p_value", "category"),
)


def report(summary: Summary) -> str:
    """The tables as Markdown, ours beside the card's."""
    parts = ["# Evaluation", "", *overview(summary)]
    for title, table in summary.tables.items():
        parts += ["", f"## {title}", "", *(compared(table) if has_card(table) else wide(table))]
    if summary.failures:
        parts += ["", "## Failed cases", "", "| case | why |", "|---|---|"]
        parts += [f"| {cell(name)} | {cell(error)} |" for name, error in summary.failures.items()]
    return "\n".join(parts) + "\n"


def overview(summary: Summary) -> list[str]:
    networks = summary.settings.get("networks", {})
    lines = [
        f"{len(summary.cases)} of {summary.n_cases} cases were answered, {len(summary.failures)} failed.",
        "Intervals are 95 %: percentile bootstrap of means, Wilson's of rates; none below five units.",
        "A difference of at most 0.005 (0.5 points of a percentage) is reproduced, of at most 0.02 near.",
    ]
    if networks:
        lines.append(", ".join(f"{name} {value}" for name, value in networks.items() if isinstance(value, str)) + ".")
    lines += [f"Not covered: {sentence}." for sentence in summary.omitted]
    return lines


def has_card(table: Table) -> bool:
    return any(number.card is not None for line in table.values() for number in line.values())


def compared(table: Table) -> list[str]:
    """A row a number, with the card's."""
    rows = ["| | | n | ours | 95 % | card | difference | verdict |", "|---|---|---|---|---|---|---|---|"]
    for name, line in table.items():
        for column, number in line.items():
            card = "-" if number.card is None else shown(number.card, number)
            difference = "-" if number.difference is None else f"{number.difference:+.{digits(number)}f}"
            value = shown(number.value, number)
            cells = (
                cell(name),
                cell(column),
                number.n,
                value,
                interval(number),
                card,
                difference,
                number.verdict or "-",
            )
            rows.append("| " + " | ".join(map(str, cells)) + " |")
    return rows


def wide(table: Table) -> list[str]:
    """A row a line, a column a number with its interval."""
    columns = list(dict.fromkeys(column for line in table.values() for column in line))
    rows = ["| | n | " + " | ".join(map(cell, columns)) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, line in table.items():
        n = max(number.n for number in line.values())
        cells = [
            f"{shown(line[c].value, line[c])} {interval(line[c], '')}".strip() if c in line else "-" for c in columns
        ]
        rows.append(f"| {cell(name)} | {n} | " + " | ".join(cells) + " |")
    return rows


def digits(number: Number) -> int:
    return 2 if number.scale == 100 else 4


def shown(value: float, number: Number) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits(number)}f}"


def interval(number: Number, missing: str = "-") -> str:
    if number.interval is None:
        return missing
    low, high = number.interval
    return f"({shown(low, number)} to {shown(high, number)})"


def cell(text: str) -> str:
    """A text that cannot end a cell of a table or its line."""
    return " ".join(text.replace("|", "\\|").split())


def cases_csv(records: Sequence[Record]) -> str:
    """The official file's columns, rounded to 4 decimals and empty for NaN; then ours."""
    extra = [name for name in CASE_METRICS if name not in OFFICIAL]
    rows: list[list[object]] = [["CaseName", "RunningTime", *OFFICIAL, *extra, "Dice", "IoU", "state", "error"]]
    for record in records:
        values = [record.metrics.get(name, math.nan) for name in (*OFFICIAL, *extra, "Dice", "IoU")]
        rows.append([record.name, *map(four_decimals, (record.seconds, *values)), record.state, record.error])
    return as_csv(rows)


def labels_csv(records: Iterable[Record]) -> str:
    """A row a prompt of a case."""
    rows: list[Sequence[object]] = [LABEL_COLUMNS]
    rows += [label_line(record, row) for record in records for row in record.rows]
    return as_csv(rows)


def label_line(record: Record, row: Row) -> list[object]:
    numbers = (row.dsc, row.nsd, row.nsd_array_order)
    return [
        *(record.name, record.modality, record.data_set, row.label, row.task, row.prompt),
        *(row.truth, row.predicted, row.common, *map(four_decimals, numbers)),
        *(int(row.is_present), int(row.is_found), four_decimals(row.score), four_decimals(row.p_value), row.category),
    ]


def four_decimals(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
