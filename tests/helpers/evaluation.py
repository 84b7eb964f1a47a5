"""Runs `medimageparse evaluate` on phantoms, as a person does, and reads its summary."""

import json

from medimageparse_client.cli import main


def evaluate(url, cases, out, *options):
    """The exit code's summary of a run; its tables by title, row and column."""
    code = main(["evaluate", str(cases), "-o", str(out), "--url", url, *map(str, options)])
    assert code == 0
    return json.loads((out / "summary.json").read_text())


def values(table, column):
    """Row -> value of a column."""
    return {row: line[column]["value"] for row, line in table.items() if column in line}
