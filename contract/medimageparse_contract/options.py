"""The optional inputs of the public models: what each may say. The first of them is what leaving it out means."""

from typing import Literal, TypeAlias, get_args

# CT windows in Hounsfield units, as the MedImageParse cards state them: (width, level)
CT_WINDOWS = {"ct-soft-tissue": (400, 40), "ct-lung": (1500, -160), "ct-brain": (80, 40), "ct-bone": (1800, 400)}

Intensity: TypeAlias = Literal["auto", "none", "percentile", "ct-soft-tissue", "ct-lung", "ct-brain", "ct-bone"]
Orientation: TypeAlias = Literal["LAS", "stored"]

INTENSITIES: tuple[str, ...] = get_args(Intensity)
ORIENTATIONS: tuple[str, ...] = get_args(Orientation)
SLICE_AXES = ("auto", "0", "1", "2")
OUTPUTS_3D = ("all", "nifti_file", "label_map")  # "all" is both
OUTPUTS_2D = ("probabilities", "masks")
