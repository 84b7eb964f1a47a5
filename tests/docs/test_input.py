"""docs/input.md says what the code does: its numbers are those of the code."""

import pytest
from helpers.places import ROOT
from medimageparse_contract.options import CT_WINDOWS, INTENSITIES
from medimageparse_serving.image import image_doubts
from medimageparse_serving.volume import grey_values, nifti_geometry

PAGE = (ROOT / "docs" / "input.md").read_text()
WORDS = " ".join(PAGE.split())


def percent(share):
    return f"{100 * share:g} %"


@pytest.mark.parametrize(
    "words",
    [
        ", ".join(f"{level - width / 2:g} and {level + width / 2:g}" for width, level in CT_WINDOWS.values()) + " HU",
        f"The highest is at least {grey_values.PICTURE_HIGHEST}",
        f"at least {percent(grey_values.PICTURE_BRIGHT_SHARE)} lie over {grey_values.PICTURE_BRIGHT} "
        f"({percent(grey_values.PICTURE_BRIGHT_SHARE_8_BIT)} in 8-bit files)",
        f"has {percent(grey_values.HU_REACH_SHARE)} of the voxels that are not 0 within "
        f"{grey_values.HU_REACH[0]}..{grey_values.HU_REACH[1]} HU",
        f"at most {grey_values.FEW_LEVELS} different values",
        f"at least {percent(grey_values.PADDING_SHARE)} of the voxels have",
        f"0 where at least {percent(grey_values.ZEROS_AMID)} of the voxels have it",
        f"up to {percent(nifti_geometry.QUATERNION_ROUNDING)} too long",
        f"differ from the sform's size by more than {percent(nifti_geometry.SAME_SIZE)}",
        f"{nifti_geometry.FARTHEST_MM / 1e6:,.0f} km",
        f"at most {image_doubts.FEW_COLOURS} colours",
        f"within less than {image_doubts.NARROW} of 256",
        *(f"`{intensity}`" for intensity in INTENSITIES),
    ],
)
def test_a_number_of_the_page_is_that_of_the_code(words):
    assert words in WORDS


def test_no_line_is_too_long():
    assert max(map(len, PAGE.splitlines())) <= 120
