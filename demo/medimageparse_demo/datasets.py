"""Phantoms that training never saw, as data sets of `medimageparse evaluate`.

`python -m medimageparse_demo.datasets OUT` writes OUT/volumes (20 volumes, two folders of NIfTI files) and OUT/images
(60 images, laid out as BiomedParseData). Every structure is asked in one random wording; of a volume as many
structures are asked that it does not have.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from medimageparse_demo import image_prompts, prompts
from medimageparse_demo.images import make_image
from medimageparse_demo.phantoms import MODALITY_STRUCTURES, STRUCTURES, Phantom, make_phantom

VOLUME_SEEDS, IMAGE_SEEDS = range(20), range(60)  # training draws from seeds of a million and more
# kind of an image -> modality and site in the names of its masks
PLACES = {"X-Ray-Chest": ("X-Ray", "chest"), "CT-Abdomen": ("CT", "abdomen"), "Pathology": ("pathology", "tissue")}


def write_volumes(folder: Path, seeds: Iterable[int] = VOLUME_SEEDS, *, paraphrased: bool = False) -> None:
    """Writes images/, labels/ and prompts/; `paraphrased` asks in wordings that training never used."""
    for name in ("images", "labels", "prompts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        phantom = make_phantom(seed)
        rng = np.random.default_rng((seed, paraphrased))
        structures = [*phantom.structures, *absent_structures(phantom, len(phantom.structures), rng)]
        structures = [structures[i] for i in rng.permutation(len(structures))]
        wordings = prompts.held_out_prompts if paraphrased else prompts.training_prompts
        asked = {
            str(label): str(rng.choice(wordings(structure, phantom.modality)))
            for label, structure in enumerate(structures, start=1)
        }
        names = {str(label): structure for label, structure in enumerate(structures, start=1)}
        labels = np.zeros(phantom.labels.shape, np.uint8)
        for label, structure in enumerate(structures, start=1):
            if structure in phantom.structures:
                labels[phantom.labels == phantom.structures[structure]] = label
        name = f"{phantom.modality}_phantom_{seed:03d}"
        nib.save(nib.Nifti1Image(phantom.intensities, phantom.affine), folder / "images" / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(labels, phantom.affine), folder / "labels" / f"{name}.nii.gz")
        entry = asked | {"instance_label": 0, "names": names}
        (folder / "prompts" / f"{name}.json").write_text(json.dumps(entry, indent=1))


def absent_structures(phantom: Phantom, n: int, rng: np.random.Generator) -> list[str]:
    """As many structures as asked that are not in the phantom; first those that its modality could have shown."""
    missing = [name for name in MODALITY_STRUCTURES[phantom.modality] if name not in phantom.structures]
    others = [
        name
        for name in (*STRUCTURES, *prompts.OTHER_STRUCTURES)
        if name not in phantom.structures and name not in missing
    ]
    return [*missing, *rng.permutation(others)][:n]


def write_images(folder: Path, seeds: Iterable[int] = IMAGE_SEEDS, *, paraphrased: bool = False) -> None:
    """Writes one set, phantoms: test/, test_mask/ and test.json."""
    pictures, masks = folder / "phantoms" / "test", folder / "phantoms" / "test_mask"
    for place in (pictures, masks):
        place.mkdir(parents=True, exist_ok=True)
    categories = sorted(set(image_prompts.CATEGORY_OF.values()))
    images, annotations = [], []
    for seed in seeds:
        phantom = make_image(seed)
        rng = np.random.default_rng((seed, paraphrased))
        wordings = image_prompts.held_out_prompts if paraphrased else image_prompts.training_prompts
        modality, site = PLACES[phantom.kind]
        name = f"phantom-{seed:03d}_{modality}_{site}"
        Image.fromarray(phantom.pixels).save(pictures / f"{name}.png")
        height, width = phantom.pixels.shape[:2]
        images.append({"id": seed, "file_name": f"{name}.png", "height": height, "width": width})
        for structure in map(str, rng.permutation(list(phantom.masks))):
            mask = f"{name}_{structure.replace(' ', '+')}.png"
            Image.fromarray(phantom.masks[structure].astype(np.uint8) * 255).save(masks / mask)
            annotations.append(
                {
                    "image_id": seed,
                    "mask_file": mask,
                    "category_id": categories.index(image_prompts.CATEGORY_OF[structure]),
                    "sentences": [{"raw": str(rng.choice(wordings(structure)))}],
                }
            )
    table = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k, "name": category} for k, category in enumerate(categories)],
    }
    (folder / "phantoms" / "test.json").write_text(json.dumps(table, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder to write to")
    parser.add_argument("--paraphrased", action="store_true", help="ask in wordings that training never used")
    arguments = parser.parse_args()
    write_volumes(arguments.folder / "volumes", paraphrased=arguments.paraphrased)
    write_images(arguments.folder / "images", paraphrased=arguments.paraphrased)


if __name__ == "__main__":
    main()
