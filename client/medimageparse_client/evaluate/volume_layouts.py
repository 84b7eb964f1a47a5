"""3D cases as three layouts hold them: the CVPR 2025 challenge, AMOS22 as published, two folders of NIfTI files."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from medimageparse_contract.catalogue import structures

from medimageparse_client.evaluate.cases import CaseError, Sentences, VolumeCase, VolumeQuestion, modality_of
from medimageparse_client.evaluate.text_prompts import Prompts, UnreadablePrompts, checked, read_text_prompts
from medimageparse_client.evaluate.volume_metrics import Volume

# folder of the images -> where their ground truth may lie beside it
TRUTH_FOLDERS = {
    "3D_val_npz": ("3D_val_gt_text_seg", "3D_val_gt"),
    "test": ("test_gt", "test_mask"),
    "imgs": ("gts",),
    "imagesVa": ("labelsVa",),
    "imagesTr": ("labelsTr",),
    "images": ("labels",),
}
PROMPT_FILE, PROMPT_FOLDER = "prompts.json", "prompts"

# label of AMOS22 -> id in the catalogue
AMOS_LABELS = {
    1: "spleen", 2: "right_kidney", 3: "left_kidney", 4: "gallbladder", 5: "esophagus", 6: "liver", 7: "stomach",
    8: "aorta", 9: "inferior_vena_cava", 10: "pancreas", 11: "right_adrenal_gland", 12: "left_adrenal_gland",
    13: "duodenum", 14: "urinary_bladder", 15: "prostate_or_uterus",
}  # fmt: skip
LAST_CT_OF_AMOS = 500


def truth_folder(images: Path, named: Path | None) -> Path | None:
    """The folder of the ground truth: the one that was named, or the usual one beside the images."""
    if named is not None:
        return named
    beside = (images.parent / name for name in TRUTH_FOLDERS.get(images.name, ()))
    return next((folder for folder in beside if folder.is_dir()), None)


def challenge_cases(images: Path, truths: Path | None) -> list[VolumeCase]:
    """One `.npz` a case; the truth has the same name in a second folder, or lies in the same file."""
    cases = []
    for path in sorted(images.glob("*.npz")):
        truth = (truths or images) / path.name
        parts = path.stem.split("_")
        cases.append(
            VolumeCase(
                name=path.stem,
                modality=modality_of(path.stem),
                data_set=parts[1] if len(parts) > 2 else parts[0],
                image=path,
                truth=truth if truth.exists() else None,
                prompts=partial(challenge_prompts, path),
                load=partial(load_challenge, path, truth),
            )
        )
    return cases


def challenge_prompts(image: Path) -> Prompts:
    try:
        return read_text_prompts(image)
    except UnreadablePrompts as error:
        raise CaseError(f"{error}") from error


def load_challenge(image: Path, truth: Path, sentences: Sentences) -> VolumeQuestion:
    prompts = challenge_prompts(image)
    volume = member(image, "imgs")
    labels = member(truth, "gts")
    if volume.dtype != np.uint8 or volume.ndim != 3:
        raise CaseError(f"imgs is {volume.dtype} of {volume.ndim} axes; it must be uint8 (D,H,W)")
    if labels.shape != volume.shape or labels.dtype.kind not in "iu":
        raise CaseError(f"gts is {labels.dtype} {labels.shape}; imgs has {volume.shape}")
    spacing = spacing_of(image)
    return VolumeQuestion(
        volume=np.ascontiguousarray(volume.transpose(2, 1, 0)),
        affine=np.diag([*spacing, 1.0]),
        options={"orientation": "stored", "intensity": "none", "slice_axis": "auto"},
        prompts=chosen(prompts, sentences, image.stem),
        names=prompts.names,
        is_instance=prompts.is_instance,
        truth=labels,
        spacing=spacing,
    )


def member(path: Path, name: str) -> npt.NDArray[Any]:
    """One array of a `.npz`, without pickles."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return np.asarray(file[name])
    except FileNotFoundError:
        raise CaseError("there is no ground truth of this name") from None
    except KeyError:
        raise CaseError(f"the file has no {name}") from None
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise CaseError(f"{name} cannot be read from the .npz") from error


def spacing_of(path: Path) -> tuple[float, float, float]:
    spacing = member(path, "spacing")
    if spacing.shape != (3,) or spacing.dtype.kind not in "fiu" or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise CaseError("spacing is not three lengths above 0")
    x, y, z = spacing.tolist()
    return float(x), float(y), float(z)


def chosen(prompts: Prompts, sentences: Sentences, name: str) -> dict[int, str]:
    return {label: sentences.of(several, name, label) for label, several in prompts.sentences.items()}


def amos_cases(images: Path, truths: Path | None) -> list[VolumeCase]:
    """`amos_XXXX.nii.gz` with labels 1..15; ids up to 500 are CT, above MRI."""
    cases = []
    for path in sorted(images.glob("amos_*.nii.gz")):
        modality = "CT" if int(path.name.removeprefix("amos_").removesuffix(".nii.gz")) <= LAST_CT_OF_AMOS else "MR"
        sentences = {label: (text,) for label, text in amos_prompts(modality).items()}
        prompts = Prompts(sentences, is_instance=False, names=AMOS_LABELS)
        options = {"intensity": "ct-soft-tissue" if modality == "CT" else "percentile"}
        cases.append(nifti_case(path, truths, modality, "AMOS22", prompts, options))
    return cases


def amos_prompts(modality: str) -> dict[int, str]:
    """The catalogue's sentence of each label."""
    rows = {
        row.id: row.prompt
        for row in structures("3d", modality)
        if row.region in ("abdomen", "pelvis") and not row.sequence
    }
    return {label: rows[name] for label, name in AMOS_LABELS.items()}


def nifti_cases(images: Path, truths: Path | None) -> list[VolumeCase]:
    """A folder of NIfTI files, one of label maps of the same names, and `prompts.json`, shaped like `text_prompts`.

    The prompts hold for all files, but for those that have a `NAME.json` of their own in a folder `prompts` beside it.
    """
    common = next((f / PROMPT_FILE for f in (images, images.parent) if (f / PROMPT_FILE).exists()), None)
    own = images.parent / PROMPT_FOLDER
    if common is None and not own.is_dir():
        raise CaseError(f"there is no {PROMPT_FILE} in the folder of images or beside it")
    cases = []
    for path in sorted({*images.glob("*.nii"), *images.glob("*.nii.gz")}):
        of_case = own / f"{stem(path)}.json"
        file = of_case if of_case.exists() else common
        if file is None:
            raise CaseError(f"there is neither {PROMPT_FILE} nor {PROMPT_FOLDER}/{of_case.name}")
        cases.append(nifti_case(path, truths, modality_of(stem(path)), images.parent.name, json_prompts(file), {}))
    return cases


def json_prompts(path: Path) -> Prompts:
    """The prompts of a JSON file, which may say under "names" what the structures are called in tables."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        names = entries.pop("names", {})
        return replace(checked(entries), names={int(label): str(name) for label, name in names.items()})
    except (UnreadablePrompts, ValueError, AttributeError) as error:
        words = str(error) if isinstance(error, UnreadablePrompts) else "it is not a JSON object of labels"
        raise CaseError(f"{path.name}: {words}") from error


def stem(path: Path) -> str:
    """The name without .nii or .nii.gz."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def nifti_case(
    image: Path, truths: Path | None, modality: str, data_set: str, prompts: Prompts, options: Mapping[str, str]
) -> VolumeCase:
    truth = truths / image.name if truths is not None else None
    return VolumeCase(
        name=stem(image),
        modality=modality,
        data_set=data_set,
        image=image,
        truth=truth if truth is not None and truth.exists() else None,
        prompts=lambda: prompts,
        load=partial(load_nifti, image, truth, prompts, options),
    )


def load_nifti(
    image: Path, truth: Path | None, prompts: Prompts, options: Mapping[str, str], sentences: Sentences
) -> VolumeQuestion:
    if truth is None or not truth.exists():
        raise CaseError("there is no ground truth of this name")
    labels, spacing = read_labels(truth)
    return VolumeQuestion(
        volume=image,
        affine=None,
        options=options,
        prompts=chosen(prompts, sentences, image.name),
        names=prompts.names,
        is_instance=prompts.is_instance,
        truth=labels,
        spacing=spacing,
    )


def read_labels(path: Path) -> tuple[Volume, tuple[float, float, float]]:
    """A label map [D,H,W] of a NIfTI file and its spacing (x,y,z) in mm."""
    try:
        image = nib.load(path)
        stored = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
        x, y, z = image.header.get_zooms()[:3]  # type: ignore[attr-defined]
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise CaseError("the ground truth is not a readable NIfTI file of three axes") from error
    labels = stored if stored.dtype.kind in "iu" else np.rint(stored).astype(np.int64)
    if labels.ndim != 3 or (labels is not stored and not np.array_equal(labels, stored)):
        raise CaseError("the ground truth is not a label map of whole numbers with three axes")
    return labels.transpose(2, 1, 0), (float(x), float(y), float(z))
