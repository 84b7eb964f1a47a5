"""The colours of labels: the catalogue's where it knows the prompt, else hues that are far apart."""

import colorsys
from collections.abc import Iterable

from medimageparse_contract.catalogue import Model, rows_named

Colour = tuple[int, int, int]  # red, green, blue, 0..255


def colour(label: int) -> Colour:
    """A colour for each label; neighbours in number are far apart in hue."""
    hue = (0.02 + (label - 1) * 0.618034) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65 if label % 2 else 0.9, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def colours_of(prompts: Iterable[str], model: Model) -> dict[int, Colour]:
    """Label -> colour, no two alike; prompts are known by the catalogue's sentence, name, id or alias in any case."""
    labelled = dict(enumerate(prompts, 1))
    colours: dict[int, Colour] = {}
    for label, prompt in labelled.items():
        rows = rows_named(prompt, model)
        if rows and rows[0].rgb not in colours.values():
            colours[label] = rows[0].rgb
    for label in labelled.keys() - colours.keys():
        hues = (colour(number) for number in range(label, label + len(labelled) + 1))
        colours[label] = next(hue for hue in hues if hue not in colours.values())
    return colours
