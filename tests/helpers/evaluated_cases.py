"""Small cases in the layouts of `medimageparse evaluate`, and an answerer that knows the truth."""

import json

import nibabel as nib
import numpy as np
from medimageparse_client.evaluate.answers import ImageAnswer, MaskAnswer, VolumeAnswer, read_mask
from PIL import Image

SENTENCES = {"1": "liver in abdominal CT", "2": "spleen", "3": "pancreas"}
SHAPE = (6, 14, 12)  # D, H, W
SPACING = (0.8, 0.9, 5.0)  # x, y, z


def truth(seed=0, n=2):
    """Labels [D,H,W]: blocks 1..n."""
    labels = np.zeros(SHAPE, np.uint8)
    for label in range(1, n + 1):
        low = np.random.default_rng((seed, label)).integers(0, 2, 3)
        start = low + (0, 7 * (label - 1), 1)
        labels[start[0] : start[0] + 4, start[1] : start[1] + 4, start[2] : start[2] + 7] = label
    return labels


def picture(seed=0):
    """Greys [D,H,W] in which the labels can be seen."""
    rng = np.random.default_rng(seed)
    return (60 * truth(seed) + rng.integers(0, 20, SHAPE)).astype(np.uint8)


def write_challenge(folder, names=("CT_one_1", "CT_two_2", "MR_three_3"), sentences=SENTENCES, instance_label=0):
    """imgs/ and gts/; gives the folder of the images."""
    images, truths = folder / "imgs", folder / "gts"
    for place in (images, truths):
        place.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        prompts = np.array({**sentences, "instance_label": instance_label}, dtype=object)
        np.savez(images / f"{name}.npz", imgs=picture(seed), spacing=np.array(SPACING), text_prompts=prompts)
        np.savez(truths / f"{name}.npz", gts=truth(seed), spacing=np.array(SPACING))
    return images


def write_nifti(folder, names=("CT_a", "CT_b"), images="images", labels="labels", labelled=truth):
    for place in (images, labels):
        (folder / place).mkdir(parents=True, exist_ok=True)
    affine = np.diag([-SPACING[0], SPACING[1], SPACING[2], 1])
    for seed, name in enumerate(names):
        nib.save(nib.Nifti1Image(picture(seed).T, affine), folder / images / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(labelled(seed).T, affine), folder / labels / f"{name}.nii.gz")
    (folder / "prompts.json").write_text(json.dumps(SENTENCES | {"instance_label": 0}))
    return folder / images


TASKS = ("CT_abdomen_liver", "CT_abdomen_spleen", "X-Ray_chest_left+lung")


def write_biomedparse(folder, data_set="sets/one", split="test"):
    """Three images: liver and spleen, liver, left lung."""
    place = folder / data_set
    images, masks = place / split, place / f"{split}_mask"
    for sub in (images, masks):
        sub.mkdir(parents=True)
    table = {"images": [], "annotations": [], "categories": [{"id": 4, "name": "liver"}]}
    for number, tasks in enumerate([TASKS[:2], TASKS[:1], TASKS[2:]]):
        site = "_".join(tasks[0].split("_")[:2])
        name = f"p{number}_{site}"
        pixels = np.full((16, 20), 30, np.uint8)
        table["images"].append({"id": number, "file_name": f"{name}.png", "height": 16, "width": 20})
        for k, task in enumerate(tasks):
            mask = np.zeros((16, 20), np.uint8)
            mask[3 + 6 * k : 8 + 6 * k, 4:12] = 255
            pixels[mask > 0] = 90 + 60 * k
            file = f"{name}_{task.split('_')[-1]}.png"
            Image.fromarray(mask).save(masks / file)
            entry = {
                "image_id": number,
                "mask_file": file,
                "sentences": [{"raw": f"The {task}"}, {"raw": "other words"}],
            }
            table["annotations"].append(entry | ({"category_id": 4} if "liver" in task else {}))
        Image.fromarray(pixels).save(images / f"{name}.png")
    (place / f"{split}.json").write_text(json.dumps(table))
    return folder


class Oracle:
    """Answers with the truth, but for what `spoil` makes of it; counts what it was asked."""

    def __init__(self, spoil=lambda case, labels: labels, networks=None):
        self.spoil, self.networks = spoil, networks or {"variant": "ORACLE"}
        self.asked = []

    def of_volume(self, case, question, prompts):
        self.asked.append((case.name, tuple(prompts.values())))
        labels = question.truth if list(prompts) == list(question.prompts) else np.zeros_like(question.truth)
        labels = self.spoil(case, labels.copy())
        scores = np.array([(labels == label).any((1, 2)) for label in prompts], np.float32)
        return VolumeAnswer(labels, 1.5, scores, 0)

    def of_image(self, case, prompts, image_type):
        self.asked.append((case.name, tuple(prompts), image_type))
        masks = [read_mask(annotation.mask) for annotation in case.annotations]
        masks += [np.zeros_like(masks[0])] * (len(prompts) - len(masks))
        return ImageAnswer([MaskAnswer(mask, float(mask.any()) * 0.9, "liver", np.nan) for mask in masks], 0.5)
