"""Text prompts in many wordings for what the phantom images show, and the category of each structure."""

import numpy as np

from medimageparse_demo import prompts
from medimageparse_demo.images import KIND_STRUCTURES
from medimageparse_demo.prompts import SHORT, Region, draw, fill, names_of

SHARED = ("left lung", "right lung", "heart", "liver", "spleen", "left kidney", "right kidney", "stomach", "aorta")
# structure: names used in training | names kept for tests, made of words that training uses elsewhere
NAMES = {structure: prompts.NAMES[structure] for structure in SHARED} | {
    "infection": (
        "infection | lung infection | COVID-19 infection | pneumonia | viral pneumonia | infected parenchyma",
        "COVID-19 pneumonia | pulmonary infection | viral lung infection",
    ),
    "pancreas": (
        "pancreas | pancreatic parenchyma | pancreatic organ | pancreas with head and tail",
        "pancreatic tissue | pancreas organ",
    ),
    "tumor": (
        "tumor | liver tumor | hepatic tumor | tumour | liver lesion | hepatic tumour",
        "liver tumour | hepatic lesion",
    ),
    "neoplastic cells": (
        "neoplastic cells | neoplastic cell nuclei | cancer cells | neoplastic nuclei | malignant cells",
        "cancer cell nuclei | malignant nuclei",
    ),
    "inflammatory cells": (
        "inflammatory cells | inflammatory cell nuclei | immune cells | lymphocytes | inflammatory infiltrate",
        "immune cell nuclei | inflammatory nuclei",
    ),
    "connective tissue cells": (
        "connective tissue cells | connective tissue nuclei | stromal cells | fibroblasts | connective cells",
        "stromal cell nuclei | connective tissue cell nuclei",
    ),
}

# one of the model's sixteen categories each
CATEGORY_OF = {
    "left lung": "lung",
    "right lung": "lung",
    "heart": "heart anatomies",
    "infection": "infection",
    "liver": "liver",
    "spleen": "other organ",
    "left kidney": "kidney",
    "right kidney": "kidney",
    "stomach": "other organ",
    "pancreas": "pancreas",
    "aorta": "vessel",
    "tumor": "tumor",
    "neoplastic cells": "histology structure",
    "inflammatory cells": "histology structure",
    "connective tissue cells": "histology structure",
}

SCANS: dict[str, tuple[str, ...]] = {
    "X-Ray-Chest": ("X-ray", "radiograph"),
    "CT-Abdomen": ("CT", "computed tomography"),
    "Pathology": ("pathology", "histology", "microscopy"),
}
REGIONS: dict[str, tuple[Region, ...]] = {
    "X-Ray-Chest": (("chest", "thoracic"),),
    "CT-Abdomen": (("abdomen", "abdominal"),),
    "Pathology": (("breast", "breast"), ("colon", "colonic")),
}

COMMANDS = (*(t for t in prompts.COMMANDS if "volume" not in t), "contour of the {name} in this {scan} image")
SENTENCES = (*prompts.SENTENCES, "{name} in {region} {scan}", "{name} in {regional} {scan} image")
HELD_OUT_TEMPLATES = (*prompts.HELD_OUT_TEMPLATES, "{name} in this {regional} {scan}")


def training_prompts(structure: str) -> list[str]:
    """All wordings of a structure that training draws from."""
    return fill(SHORT + COMMANDS + SENTENCES, names_of(NAMES[structure]), *_scans_and_regions(structure))


def held_out_prompts(structure: str) -> list[str]:
    """Paraphrases that training never sees: new templates, and new names made of known words."""
    known, new = names_of(NAMES[structure]), names_of(NAMES[structure], held_out=True)
    place = _scans_and_regions(structure)
    return fill(SHORT + COMMANDS + SENTENCES, new, *place) + fill(HELD_OUT_TEMPLATES, known + new, *place)


def sample_prompt(structure: str, rng: np.random.Generator) -> str:
    """One training prompt with random case and punctuation; plain names are drawn as often as sentences."""
    templates = (SHORT, COMMANDS, SENTENCES)[rng.integers(3)]
    return draw(templates, names_of(NAMES[structure]), *_scans_and_regions(structure), rng)


def _scans_and_regions(structure: str) -> tuple[tuple[str, ...], tuple[Region, ...]]:
    kind = next(kind for kind, structures in KIND_STRUCTURES.items() if structure in structures)
    return SCANS[kind], REGIONS[kind]
