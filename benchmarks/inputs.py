"""What is segmented: slices of the real CT beside the checkout, or of a phantom where it is absent."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from medimageparse.comparison import blobs
from medimageparse.served_tensors import CLASSES
from medimageparse.variants import PUBLISHED_2D

REAL_CT = Path(__file__).resolve().parents[2] / "shared" / "data" / "CT_AMOS_amos_0018.npz"
PHANTOM_SEED = 4
IN_PLANE = 512
PICTURE_SEED = 1
SENTENCES = tuple(f"{name} in a CT scan of the abdomen" for name in CLASSES)  # where no others are at hand


@dataclass(frozen=True)
class Case:
    """source: what it is, for the results; volume [x,y,z] stored LAS; prompts: one sentence a structure."""

    source: str
    volume: nib.Nifti1Image
    prompts: list[str]


def load_case(n_slices: int, real_ct: Path = REAL_CT) -> Case:
    """The middle slices of the real CT with its sentences, or as many of a phantom with its structures' names."""
    return real_case(real_ct, n_slices) if real_ct.exists() else phantom_case(n_slices)


def real_case(path: Path, n_slices: int) -> Case:
    with np.load(path, allow_pickle=True) as file:  # the sentences are a pickled dictionary
        slices, spacing, sentences = file["imgs"], file["spacing"], file["text_prompts"].item()
    first = (len(slices) - n_slices) // 2
    if first < 0:
        raise ValueError(f"the real CT has {len(slices)} slices; ask for at most as many")
    prompts = [sentences[key] for key in sorted((key for key in sentences if key.isdigit()), key=int)]
    source = f"{path.stem} slices {first}..{first + n_slices - 1} of {len(slices)}"
    return Case(source, las_image(slices[first : first + n_slices], spacing), prompts)


def phantom_case(n_slices: int) -> Case:
    from medimageparse_demo.phantoms import STRUCTURES, make_phantom, windowed

    phantom = make_phantom(PHANTOM_SEED, "CT", (n_slices, IN_PLANE, IN_PLANE))
    return Case(f"phantom CT seed {PHANTOM_SEED}", las_image(windowed(phantom), phantom.spacing_mm), list(STRUCTURES))


def endless_case(n_slices: int, n_prompts: int, real_ct: Path = REAL_CT) -> Case:
    """As many slices and prompts as asked for: a volume of at most 16 slices is repeated, made-up sentences follow."""
    case = load_case(min(n_slices, 16), real_ct)
    slices = np.asarray(case.volume.dataobj)
    repeated = slices[..., np.arange(n_slices) % slices.shape[2]]
    prompts = [*case.prompts, *SENTENCES][:n_prompts]
    if len(prompts) < n_prompts:
        raise ValueError(f"there are {len(prompts)} sentences; ask for at most as many prompts")
    return Case(case.source, nib.Nifti1Image(repeated, case.volume.affine, case.volume.header), prompts)


def las_image(slices: np.ndarray, spacing_mm: np.ndarray | tuple[float, ...]) -> nib.Nifti1Image:
    """Slices first [z,y,x] of 0..255 -> NIfTI [x,y,z] that lies as dcm2niix stores an axial CT."""
    left, anterior, superior = (float(side) for side in spacing_mm)
    image = nib.Nifti1Image(np.ascontiguousarray(slices.transpose(2, 1, 0)), np.diag([-left, anterior, superior, 1]))
    image.header.set_xyzt_units("mm")
    return image


def random_picture(side: int = PUBLISHED_2D.image_size) -> np.ndarray:
    """uint8 [side,side,3]; by default of the side that the published 2D networks see, so that nothing is resized."""
    picture = blobs(side, 3, np.random.default_rng(PICTURE_SEED))
    return np.ascontiguousarray(picture.astype(np.uint8).transpose(1, 2, 0))
