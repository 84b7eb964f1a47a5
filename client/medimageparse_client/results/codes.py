"""What a prompt is in DICOM's words: the catalogue's codes where it knows the prompt, else a private one."""

import hashlib
from dataclasses import dataclass

from medimageparse_contract.catalogue import Code, rows_named

PRIVATE = "99MEDIMAGEPARSE"  # a designator that begins with 99 is nobody's standard
TISSUE = Code("85756007", "SCT", "Tissue")
LONGEST = 64  # characters of a label or a meaning


@dataclass(frozen=True)
class Described:
    """
    label: what people read; of a known structure its name, since a code may be broader
    type, region: each with its modifiers; no region where the type says where it is
    """

    label: str
    category: Code
    type: Code
    type_modifiers: tuple[Code, ...] = ()
    region: Code | None = None
    region_modifiers: tuple[Code, ...] = ()


def describe(prompt: str) -> Described:
    """A prompt that names several structures of the catalogue has the codes of none."""
    rows = rows_named(prompt, "3d")
    if len({row.id for row in rows}) != 1:
        return Described(short(prompt), TISSUE, private_code(prompt))
    row = rows[0]
    kind = row.type or Code(row.private_code, PRIVATE, short(row.name))
    modifiers = tuple(code for code in (row.type_modifier,) if code)
    side = (row.laterality,) if row.laterality else ()
    if row.anatomic_region:  # the side is that of the place where it was found
        return Described(short(row.name), row.category, kind, modifiers, row.anatomic_region, side)
    return Described(short(row.name), row.category, kind, (*modifiers, *side))


def private_code(prompt: str) -> Code:
    """The same for the same words, in any letter case."""
    words = " ".join(prompt.casefold().split())
    return Code(hashlib.sha256(words.encode()).hexdigest()[:12].upper(), PRIVATE, short(prompt))


def short(text: str) -> str:
    """One line that a DICOM text of 64 characters takes."""
    line = " ".join(text.replace("\\", "/").split())
    return "".join(letter for letter in line if letter.isprintable())[:LONGEST].strip()
