"""The phantoms that the gateway's viewer offers: `python -m medimageparse_demo.viewer_phantoms FOLDER` writes them."""

import argparse
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from medimageparse_demo.demo import IMAGE_SEED, SEED
from medimageparse_demo.images import make_image
from medimageparse_demo.phantoms import make_phantom

SHAPE = (64, 128, 128)  # slices, rows, columns: thin slices, so that all three planes are worth a look
STEP_HU = 10  # grey values are rounded to it, which halves the file and is not seen


def volume() -> nib.Nifti1Image:
    """The torso of `make demo` in finer slices: int16 HU, LAS."""
    phantom = make_phantom(SEED, "CT", SHAPE)
    rounded = (np.round(phantom.intensities / STEP_HU) * STEP_HU).astype(np.int16)
    image = nib.Nifti1Image(rounded, phantom.affine)
    image.header.set_xyzt_units("mm")
    return image


def picture() -> Image.Image:
    """The chest X-ray of `make demo`."""
    return Image.fromarray(make_image(IMAGE_SEED, "X-Ray-Chest").pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="usually gateway/medimageparse_gateway/viewer/files")
    folder = parser.parse_args().folder
    (folder / "phantom.nii.gz").write_bytes(gzip.compress(volume().to_bytes(), 9, mtime=0))
    picture().save(folder / "phantom.png", optimize=True)


if __name__ == "__main__":
    main()
