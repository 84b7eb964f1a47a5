"""Sets of the catalogue in place of prompts, and how many prompts are decoded together."""

from collections.abc import Sequence

from medimageparse_contract.catalogue import Structure, rows_of_presets

from medimageparse_serving.refused import Refused
from medimageparse_serving.triton.tensors import Inputs

PASS = 64  # prompts that compete with each other: as many as tokenize_prompts and the mask decoder take
LONGEST = 2000  # bytes; the names of all sets are shorter


def read_preset(inputs: Inputs) -> tuple[Structure, ...]:
    """The structures of the sets that `preset` names, of all sets together 255 at most; none where there is `text`."""
    if "preset" not in inputs:
        if "text" not in inputs:
            raise Refused("there is neither text nor preset; send prompts as text, or the name of a preset")
        return ()
    if "text" in inputs:
        raise Refused("text and preset both say what to look for; send one of them")
    rows = rows_of_presets(inputs.item("preset")[:LONGEST].decode(errors="replace"), "3d")
    if not rows:
        raise Refused(
            "preset is unknown; send one such as ct-abdomen, or several separated by &; the command medimageparse "
            "structures lists them"
        )
    return rows


def texts_of(rows: Sequence[Structure]) -> list[str]:
    """What tokenize_prompts is asked, pass by pass."""
    prompts = [row.prompt for row in rows]
    return [" & ".join(prompts[start : start + PASS]) for start in range(0, len(prompts), PASS)]


def described(rows: Sequence[Structure]) -> dict[str, list[str | None]]:
    """What the report says of each structure besides."""
    return {"id": [row.id for row in rows], "type": [row.type.meaning if row.type else None for row in rows]}
