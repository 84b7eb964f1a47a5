"""The catalogue: what the two models were trained to find, in which words to ask, and under which codes.

`structures.csv` has one row per structure, model, modality and site, since the recommended prompt differs: the key of a
row is id, model, modalities, sequence and region. Rows of one id share their codes. The names and prompts are the
model cards' and the public class lists', the codes DICOM's (PS3.16) and published mappings'.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, TypeAlias

Model: TypeAlias = Literal["2d", "3d"]


@dataclass(frozen=True)
class Code:
    """One coded term of DICOM: value, coding scheme (SCT, DCM, NCIt) and meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Structure:
    """One row. What a row does not have is "" or, of codes, None.

    `recommended` says where the structure stands: "card" in the model card's list, "evaluated" in its results only,
    "trained" in a class list only. `kind` is "instance" where the training set counts things apart. `code_match` is
    "broader" where the type's code is true but less specific than the name, so readers must not merge by code.
    """

    id: str
    name: str
    model: Model
    modalities: str
    sequence: str
    region: str
    prompt: str
    recommended: str
    kind: str
    presets: tuple[str, ...]
    rgb: tuple[int, int, int]  # 0..255
    cielab: tuple[int, int, int]  # as Recommended Display CIELab Value: 0..65535 each
    category: Code
    type: Code | None  # None: no code is known, and a writer takes `private_code`
    type_modifier: Code | None
    anatomic_region: Code | None
    laterality: Code | None  # belongs to the anatomic region where there is one, else to the type
    code_match: str
    private_code: str
    target_key: str  # 2D: "image type/target" of the p-value test
    aliases: tuple[str, ...]
    note: str


@cache
def catalogue() -> tuple[Structure, ...]:
    """All rows, in the order of the file."""
    table = files(__package__).joinpath("structures.csv").read_text(encoding="utf-8")
    return tuple(_structure(row) for row in csv.DictReader(io.StringIO(table)))


def structures(
    model: Model | None = None, modality: str | None = None, preset: str | None = None
) -> tuple[Structure, ...]:
    """The rows of a model, a modality ("CT", "MR", ...) and a preset ("CT-Abdomen", ...), in any letter case."""

    def is_wanted(row: Structure) -> bool:
        return (
            model in (None, row.model)
            and (modality is None or row.modalities.casefold() == modality.casefold())
            and (preset is None or preset.casefold() in row.presets)
        )

    return tuple(row for row in catalogue() if is_wanted(row))


@cache
def _rows_by_name(model: Model) -> dict[str, tuple[Structure, ...]]:
    rows: dict[str, tuple[Structure, ...]] = {}
    for row in structures(model):
        for name in {name.casefold() for name in (row.prompt, row.name, row.id, *row.aliases)}:
            rows[name] = (*rows.get(name, ()), row)
    return rows


def rows_named(prompt: str, model: Model) -> tuple[Structure, ...]:
    """The rows that a prompt names by sentence, name, id or alias, in any letter case; none for a free prompt."""
    return _rows_by_name(model).get(prompt.casefold().strip(), ())


def presets(model: Model) -> tuple[str, ...]:
    """The names of a model's sets: structures that do not contain one another, to be looked for together."""
    return tuple(dict.fromkeys(preset for row in structures(model) for preset in row.presets))


def rows_of_presets(names: str, model: Model) -> tuple[Structure, ...]:
    """The rows of one set, or of several with & between their names, each sentence once; none for an unknown set."""
    rows: dict[str, Structure] = {}
    for name in names.split("&"):
        of_set = structures(model, preset=name.strip())
        if not of_set:
            return ()
        for row in of_set:
            rows.setdefault(row.prompt, row)
    return tuple(rows.values())


def _structure(row: dict[str, str]) -> Structure:
    # a set's name is written with its model, "3d/ct-abdomen"; the row says the model already
    names = tuple(_parts(row["presets"].replace(f"{row['model']}/", "")))
    return Structure(
        id=row["id"],
        name=row["name"],
        model="2d" if row["model"] == "2d" else "3d",
        modalities=row["modalities"],
        sequence=row["sequence"],
        region=row["region"],
        prompt=row["prompt"],
        recommended=row["recommended"],
        kind=row["kind"],
        presets=names,
        rgb=_three(row["rgb"]),
        cielab=_three(row["cielab"]),
        category=Code(row["category_code"], "SCT", row["category_meaning"]),
        type=_code(row, "type", row["type_scheme"]),
        type_modifier=_code(row, "modifier"),
        anatomic_region=_code(row, "region"),
        laterality=_code(row, "laterality"),
        code_match=row["code_match"],
        private_code=row["private_code"],
        target_key=row["target_key"],
        aliases=tuple(_parts(row["aliases"])),
        note=row["note"],
    )


def _code(row: dict[str, str], name: str, scheme: str = "SCT") -> Code | None:
    value = row[f"{name}_code"]
    return Code(value, scheme, row[f"{name}_meaning"]) if value else None


def _parts(cell: str) -> Iterator[str]:
    return (part for part in cell.split(";") if part)


def _three(cell: str) -> tuple[int, int, int]:
    first, second, third = (int(part) for part in cell.split(","))
    return first, second, third
