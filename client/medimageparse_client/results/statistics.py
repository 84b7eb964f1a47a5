"""The numbers of an answer, one row a prompt: for tables, notebooks and pandas.DataFrame."""

from html import escape
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from medimageparse_client.results.report import Report

Row: TypeAlias = dict[str, Any]

# of the report's prompts, in this order; then of the voxels
VOLUME_COLUMNS = (
    *("label", "present", "why_absent", "highest_score", "slices_scored", "slices_shown"),
    *("voxels", "volume_ml", "box_voxels"),
)
IMAGE_COLUMNS = ("label", "present", "category", "p_value", "highest_probability", "area_pixels", "box_pixels")
VALUE_COLUMNS = ("mean", "deviation")


def rows_of(report: Report, columns: tuple[str, ...]) -> list[Row]:
    """What the report says about each prompt; None for what a server does not tell."""
    return [
        {"prompt": told["text"]} | {column: told.get(column) for column in columns} | {"label": label}
        for label, told in enumerate(report["prompts"], start=1)
    ]


def value_statistics(voxels: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> Row:
    """Mean and standard deviation of the finite values in a mask; None where there are none, as in an RGB volume."""
    values = voxels[mask] if voxels.dtype.kind in "buif" else np.empty(0)
    values = values[np.isfinite(values)].astype(np.float64)
    if not values.size:
        return dict.fromkeys(VALUE_COLUMNS)
    return {"mean": float(values.mean()), "deviation": float(values.std())}


def html_table(rows: list[Row]) -> str:
    """The rows as a notebook shows them."""
    if not rows:
        return "<table><tr><td>nothing was found</td></tr></table>"
    head = "".join(f"<th>{escape(column)}</th>" for column in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{escape(words(value))}</td>' for value in row.values())}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def words(value: object) -> str:
    """A value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}"
    return "" if value is None else str(value)
