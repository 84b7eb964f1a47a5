"""Text prompts in many wordings for the phantoms' structures, and for structures that no phantom holds."""

from collections.abc import Collection, Sequence
from typing import TypeAlias

import numpy as np

from medimageparse_demo.phantoms import MODALITY_STRUCTURES, STRUCTURES

# structure: names used in training | names kept for tests, made of words that training uses elsewhere
NAMES = {
    "liver": ("liver | hepatic parenchyma | hepatic organ | liver parenchyma", "hepatic tissue | liver organ"),
    "spleen": ("spleen | splenic parenchyma | splenic tissue | spleen organ", "splenic organ | spleen tissue"),
    "left kidney": (
        "left kidney | kidney on the left | left renal parenchyma | kidney of the left side | left-sided kidney",
        "left renal tissue | left-sided renal parenchyma",
    ),
    "right kidney": (
        "right kidney | kidney on the right | right renal parenchyma | kidney of the right side | right-sided kidney",
        "right renal tissue | right-sided renal parenchyma",
    ),
    "gallbladder": ("gallbladder | gallbladder organ | biliary sac", "gallbladder sac | biliary organ"),
    "stomach": ("stomach | gastric organ | stomach with its wall | gastric structure", "stomach organ | gastric wall"),
    "aorta": (
        "aorta | aortic vessel | descending aorta | aortic structures | aortic lumen",
        "descending aortic vessel | aortic structure",
    ),
    "spine": (
        "spine | vertebrae | vertebral column | backbone | spinal column | vertebral bones",
        "spinal bones | column of vertebrae",
    ),
    "left lung": (
        "left lung | lung on the left | left pulmonary parenchyma | lung of the left side | left-sided lung",
        "left pulmonary tissue | left lung parenchyma",
    ),
    "right lung": (
        "right lung | lung on the right | right pulmonary parenchyma | lung of the right side | right-sided lung",
        "right pulmonary tissue | right lung parenchyma",
    ),
    "heart": ("heart | cardiac structure | cardiac muscle and chambers | heart organ", "cardiac organ | heart muscle"),
    "bladder": (
        "bladder | urinary bladder | bladder organ | urinary sac",
        "urinary organ | bladder structure",
    ),
    "brain": (
        "brain | brain parenchyma | cerebral parenchyma | brain tissue | cerebral organ",
        "cerebral tissue | brain organ",
    ),
    "ventricles": (
        "ventricles | cerebral ventricles | lateral ventricles | ventricular system | ventricles of the brain",
        "brain ventricles | lateral ventricular system",
    ),
    "tumour": (
        "tumour | tumor | brain tumor | enhancing tumour | enhancing lesion | tumor core | brain lesion",
        "enhancing brain tumor | lesion of the brain",
    ),
    "pancreas": ("pancreas | pancreatic parenchyma", "pancreatic tissue"),
    "left adrenal gland": ("left adrenal gland | adrenal gland on the left", "left-sided adrenal gland"),
    "right adrenal gland": ("right adrenal gland | adrenal gland on the right", "right-sided adrenal gland"),
    "duodenum": ("duodenum | duodenal loop", "duodenal structure"),
    "esophagus": ("esophagus | oesophagus | esophageal wall", "esophageal structure"),
    "inferior vena cava": ("inferior vena cava | vena cava", "vena cava vessel"),
    "portal vein": ("portal vein | portal venous vessel", "portal vessel"),
    "prostate": ("prostate | prostate gland | prostate/uterus", "prostate organ"),
    "uterus": ("uterus | uterine organ", "uterine structure"),
    "colon": ("colon | large bowel | colonic wall", "colon wall"),
    "small bowel": ("small bowel | small intestine | bowel loop", "loop of small bowel"),
    "thyroid": ("thyroid | thyroid gland", "thyroid organ"),
    "trachea": ("trachea | windpipe", "trachea lumen"),
    "left femur": ("left femur | femur on the left", "left-sided femur"),
    "right femur": ("right femur | femur on the right", "right-sided femur"),
    "rib": ("ribs | rib bones | rib cage", "rib structures"),
    "hippocampus": ("hippocampus | hippocampal structure", "hippocampal tissue"),
    "cerebellum": ("cerebellum | cerebellar parenchyma", "cerebellar tissue"),
    "brainstem": ("brainstem | brain stem", "brainstem structure"),
    "optic nerve": ("optic nerve | optic nerves", "optic nerve structure"),
    "resection cavity": ("resection cavity | surgical cavity", "cavity of the resection"),
}
OTHER_STRUCTURES = tuple(name for name in NAMES if name not in STRUCTURES)

Region: TypeAlias = tuple[str, str]  # noun, adjective

REGIONS: dict[str, Region] = {
    "abdomen": ("abdomen", "abdominal"),
    "chest": ("chest", "thoracic"),
    "pelvis": ("pelvis", "pelvic"),
    "head": ("head", "cranial"),
}
REGION_OF = {
    "left lung": "chest",
    "right lung": "chest",
    "heart": "chest",
    "bladder": "pelvis",
    "esophagus": "chest",
    "trachea": "chest",
    "thyroid": "chest",
    "rib": "chest",
    "prostate": "pelvis",
    "uterus": "pelvis",
    "left femur": "pelvis",
    "right femur": "pelvis",
    "brain": "head",
    "ventricles": "head",
    "tumour": "head",
    "hippocampus": "head",
    "cerebellum": "head",
    "brainstem": "head",
    "optic nerve": "head",
    "resection cavity": "head",
}
SCANS = {
    "CT": ("CT", "computed tomography"),
    "MR": ("MR", "MRI", "T1-weighted MR", "post-contrast MR"),
}

SHORT = ("{name}", "the {name}", "{name} only", "whole {name}")
COMMANDS = (
    "segment the {name}",
    "segment {name}",
    "find the {name}",
    "outline the {name}",
    "show me the {name}",
    "please mark the {name}",
    "where is the {name}",
    "delineate the {name} in this {scan}",
    "mask of the {name}",
    "please segment the whole {name}",
    "contour of the {name} in this {scan} volume",
)
SENTENCES = (
    "{scan} imaging that shows the {name} in the {region}",
    "{name} on a {regional} {scan}",
    "{scan} of the {region} showing the {name}",
    "{regional} {scan} with the {name}",
    "the {name} as seen in {regional} {scan} images",
    "segmentation of the {name} in {region} {scan}",
    "{regional} {scan} images, presence of the {name}",
    "visualization of the {name} on a {scan} scan",
    "{scan} scan of the {region}: {name}",
    "{name} observed on {regional} {scan}",
    "{region} {scan} scan that shows the {name}",
    "a {scan} image with the {name} within the {region}",
)
HELD_OUT_TEMPLATES = (
    "please outline the {name} in this {scan} scan",
    "mark the whole {name}",
    "show the contour of the {name}",
    "find the {name} within the {region}",
    "presence of the {name} observed in {regional} {scan} imaging",
    "visualization of the {name} in {regional} {scan} images",
    "{regional} {scan} scan showing the {name}",
    "segmentation mask of the {name} on {scan}",
)


def training_prompts(structure: str, modality: str | None = None) -> list[str]:
    """All wordings of a structure that training draws from; the modality is the one the wording mentions."""
    return fill(SHORT + COMMANDS + SENTENCES, names_of(NAMES[structure]), *_scans_and_regions(structure, modality))


def held_out_prompts(structure: str, modality: str | None = None) -> list[str]:
    """Paraphrases that training never sees: new templates, and new names made of known words."""
    known, new = names_of(NAMES[structure]), names_of(NAMES[structure], held_out=True)
    place = _scans_and_regions(structure, modality)
    return fill(SHORT + COMMANDS + SENTENCES, new, *place) + fill(HELD_OUT_TEMPLATES, known + new, *place)


def sample_prompt(structure: str, modality: str | None, rng: np.random.Generator) -> str:
    """One training prompt with random case and punctuation; plain names are drawn as often as sentences."""
    templates = (SHORT, COMMANDS, SENTENCES)[rng.integers(3)]
    return draw(templates, names_of(NAMES[structure]), *_scans_and_regions(structure, modality), rng)


def sample_absent_prompt(
    rng: np.random.Generator, present: Collection[str], modality: str, known_share: float = 0.7
) -> tuple[str, str]:
    """A structure not in the volume (missing here, of the other modality, or unknown) and a training prompt for it."""
    missing = tuple(name for name in MODALITY_STRUCTURES[modality] if name not in present)
    foreign = tuple(name for other, names in MODALITY_STRUCTURES.items() if other != modality for name in names)
    if rng.random() >= known_share:
        candidates = OTHER_STRUCTURES
    elif missing and rng.random() < 0.8:
        candidates = missing
    else:
        candidates = foreign
    structure = candidates[rng.integers(len(candidates))]
    # a wording that names the volume's own modality must not make the structure present
    return structure, sample_prompt(structure, modality if rng.random() < 0.5 else None, rng)


def normalized(prompt: str) -> str:
    """The words alone: what two prompts must differ in to count as different."""
    return " ".join("".join(c if c.isalnum() else " " for c in prompt.lower()).split())


def names_of(entry: tuple[str, str], held_out: bool = False) -> tuple[str, ...]:
    """The names in one half of an entry of NAMES."""
    return tuple(entry[held_out].split(" | "))


def fill(templates: Sequence[str], names: Sequence[str], scans: Sequence[str], regions: Sequence[Region]) -> list[str]:
    """All sentences that the templates make, each once."""
    prompts: dict[str, None] = {}  # a dict keeps the order and drops repeats
    for template in templates:
        for name in names:
            for scan in scans:
                for region, regional in regions:
                    prompts[template.format(name=name, scan=scan, region=region, regional=regional)] = None
    return list(prompts)


def draw(
    templates: Sequence[str],
    names: Sequence[str],
    scans: Sequence[str],
    regions: Sequence[Region],
    rng: np.random.Generator,
) -> str:
    """One of the sentences, often with the first name, with random case and punctuation."""
    name = names[0] if rng.random() < 0.4 else names[rng.integers(len(names))]
    wordings = fill((templates[rng.integers(len(templates))],), (name,), scans, regions)
    prompt = wordings[rng.integers(len(wordings))]
    case = (str, str, str.capitalize, str.capitalize, str.title, str.upper)[rng.integers(6)]
    return case(prompt) + ("", "", "", ".", "?", "!")[rng.integers(6)]


def _scans_and_regions(structure: str, modality: str | None) -> tuple[tuple[str, ...], list[Region]]:
    home = REGION_OF.get(structure, "abdomen")
    regions = (home,) if home in ("abdomen", "head") else (home, "abdomen")
    return SCANS[modality or ("MR" if home == "head" else "CT")], [REGIONS[region] for region in regions]
