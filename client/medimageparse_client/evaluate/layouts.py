"""Which layout a folder has, and the cases in it."""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from medimageparse_client.evaluate.cases import Case, CaseError
from medimageparse_client.evaluate.image_layouts import biomedparse_cases, lists
from medimageparse_client.evaluate.volume_layouts import amos_cases, challenge_cases, nifti_cases, truth_folder

Layout: TypeAlias = Literal["challenge", "amos22", "nifti", "biomedparse"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def recognised(images: Path) -> Layout:
    """The layout of a folder by what lies in it. Raises CaseError if it is none of them."""
    if any(images.glob("*.npz")):
        return "challenge"
    if any(images.glob("amos_*.nii.gz")):
        return "amos22"
    if any(images.glob("*.nii")) or any(images.glob("*.nii.gz")):
        return "nifti"
    if any(lists(images)):
        return "biomedparse"
    raise CaseError(
        f"{images} has no cases: neither .npz nor NIfTI files, nor sets with a list (.json) beside a folder of images"
    )


def cases_in(images: Path, truths: Path | None, layout: Layout) -> list[Case]:
    """All cases of a folder, by name."""
    if layout == "biomedparse":
        return [*biomedparse_cases(images)]
    find = {"challenge": challenge_cases, "amos22": amos_cases, "nifti": nifti_cases}[layout]
    return sorted(find(images, truth_folder(images, truths)), key=lambda case: case.name)


def chosen(cases: Sequence[Case], pattern: str | None, limit: int | None) -> list[Case]:
    """The cases whose names fit the pattern, the first `limit` of them."""
    return [case for case in cases if pattern is None or fnmatch(case.name, pattern)][:limit]
