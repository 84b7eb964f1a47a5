"""The optional inputs of the public models: what each may say. The first of them is what leaving it out means."""

from typing import Literal, TypeAlias, get_args

# CT windows in Hounsfield units, as the MedImageParse cards state them: (width, level)
CT_WINDOWS = {"ct-soft-tissue": (400, 40), "ct-lung": (1500, -160), "ct-brain": (80, 40), "ct-bone": (1800, 400)}

Intensity: TypeAlias = Literal["auto", "none", "percentile", "ct-soft-tissue", "ct-lung", "ct-brain", "ct-bone"]
Orientation: TypeAlias = Literal["LAS", "stored"]
Maps: TypeAlias = Literal["masks", "probabilities"]  # of each prompt alone; they may overlap

INTENSITIES: tuple[str, ...] = get_args(Intensity)
ORIENTATIONS: tuple[str, ...] = get_args(Orientation)
SLICE_AXES = ("auto", "0", "1", "2")
MAPS_3D: tuple[str, ...] = get_args(Maps)
OUTPUTS_3D = ("all", "nifti_file", "label_map", *(name for kind in MAPS_3D for name in (kind, f"{kind}_file")))
MAX_DRAWS = 16  # noise fields in the mask decoder's graph
OUTPUTS_2D = ("probabilities", "masks")


def is_tensor(output: str) -> bool:
    """Whether a choice of OUTPUTS_3D asks for tensors; "all" asks for both."""
    return not output.endswith("_file")


def is_file(output: str) -> bool:
    """Whether a choice of OUTPUTS_3D asks for NIfTI files."""
    return output == "all" or output.endswith("_file")


def map_kind(output: str) -> str:
    """Which of MAPS_3D a choice of OUTPUTS_3D asks for, or ""."""
    return next((kind for kind in MAPS_3D if output in (kind, f"{kind}_file")), "")
