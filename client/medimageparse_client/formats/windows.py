"""The windows of CT that MedImageParse 2D was trained with."""

from typing import Literal, TypeAlias

Window: TypeAlias = Literal["abdomen", "lung", "pelvis", "liver", "colon", "pancreas"]

# Hounsfield units; the lowest is black, the highest white
WINDOWS: dict[Window, tuple[float, float]] = {
    "abdomen": (-150, 250),
    "lung": (-1000, 1000),
    "pelvis": (-55, 200),
    "liver": (-25, 230),
    "colon": (-68, 187),
    "pancreas": (-100, 200),
}
