"""A table of volumes: one row a case, with what is asked of it where rows differ."""

import csv
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from medimageparse_client.cohort.case import Case, Wish, WrongCases, check_id, check_unique, source_of

FILE, ID = "file", "id"
# what a row may ask otherwise than the command line does
ASKED = ("prompts", "preset", "intensity", "orientation", "slice_axis", "time_point", "series")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
Cells = dict[str, str]


def read_manifest(
    text: str, delimiter: str, folder: Path, stem_of: Callable[[Path], str], wish_of: Callable[[Cells], Wish]
) -> tuple[list[Case], list[str]]:
    """The cases, and the columns that are not read.

    folder: where relative paths begin
    stem_of: the id of a file in a row without one
    wish_of: what is asked, by the cells of ASKED that are not empty; raises WrongCases
    """
    reader = csv.DictReader(StringIO(text), delimiter=delimiter, restkey="", strict=True)
    cases: list[Case] = []
    lines: list[str] = []
    try:
        columns = [name.strip() for name in reader.fieldnames or ()]
        if FILE not in columns:
            raise WrongCases(f"the manifest has no column {FILE}; its first line names the columns")
        if len({*columns}) < len(columns):
            raise WrongCases("two columns of the manifest have one name")
        reader.fieldnames = columns
        for row in reader:
            line = f"line {reader.line_num} of the manifest"
            try:
                cases.append(case_of(row, folder, stem_of, wish_of))
            except WrongCases as error:
                raise WrongCases(f"{line}: {error}") from error
            lines.append(line)
    except csv.Error as error:
        raise WrongCases(f"line {reader.line_num} of the manifest is no line of a table: {error}") from error
    if not cases:
        raise WrongCases("the manifest has no case; write one a line below the names of the columns")
    check_unique((case.id, line) for case, line in zip(cases, lines, strict=True))
    return cases, [name for name in columns if name not in (FILE, ID, *ASKED)]


def case_of(
    row: dict[str, str], folder: Path, stem_of: Callable[[Path], str], wish_of: Callable[[Cells], Wish]
) -> Case:
    if "" in row and row[""]:
        raise WrongCases("it has more cells than columns; put text with a comma in quotes")
    cells = {name: (cell or "").strip() for name, cell in row.items()}
    if not cells[FILE]:
        raise WrongCases(f"its {FILE} is empty")
    source = source_of(cells[FILE], folder)
    if isinstance(source, str) and not cells.get(ID):
        raise WrongCases("an address needs an id, for its own would be the patient's")
    name = cells.get(ID) or stem_of(Path(source))
    return Case(check_id(name), source, wish_of({name: cells[name] for name in ASKED if cells.get(name)}))
