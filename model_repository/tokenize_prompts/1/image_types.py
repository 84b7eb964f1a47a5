"""The image types that MedImageParse 2D was trained on, with the targets that recognition looks for in each."""

import numpy as np
from numpy.typing import NDArray

ABDOMINAL_CT = (
    "postcava", "aorta", "right kidney", "left kidney", "duodenum", "pancreas", "liver", "spleen", "stomach",
    "gallbladder", "left adrenal gland", "right adrenal gland", "esophagus",
)  # fmt: skip
ABDOMINAL_MRI = (
    "aorta", "postcava", "right kidney", "duodenum", "left kidney", "liver", "pancreas", "gallbladder", "stomach",
    "spleen", "left adrenal gland", "right adrenal gland", "esophagus",
)  # fmt: skip

# names and order are upstream's: equal p-values are settled by the order
TARGETS = {
    "CT-Abdomen": ABDOMINAL_CT,
    "CT-Chest": ("nodule", "COVID-19 infection", "tumor"),
    "CT-Liver": ("vessel", "tumor"),
    "MRI-Abdomen": ABDOMINAL_MRI,
    "MRI-Cardiac": ("left heart ventricle", "myocardium", "right heart ventricle"),
    "MRI-FLAIR-Brain": ("edema", "tumor core"),
    "MRI-T1-Gd-Brain": ("enhancing tumor", "non-enhancing tumor"),
    "Pathology": ("connective tissue cells", "inflammatory cells", "neoplastic cells", "epithelial cells"),
    "X-Ray-Chest": ("left lung", "right lung"),
    "Ultrasound-Cardiac": ("left heart atrium", "left heart ventricle"),
    "Endoscopy": ("neoplastic polyp", "non-neoplastic polyp"),
    "Fundus": ("optic cup", "optic disc"),
    "Dermoscopy": ("lesion",),
    "OCT": ("edema",),
}


def known_image_type(name: bytes) -> str:
    """The request's `image_type` as a string."""
    image_type = name[:100].decode(errors="replace").strip()  # none is as long
    if image_type not in TARGETS:
        raise ValueError(f"image_type is not known; send one of: {', '.join(TARGETS)}")
    return image_type


def targets_of(image_type: str | None) -> list[str]:
    """The prompts of a request without `text`."""
    if image_type is None:
        raise ValueError("there is neither text nor image_type; send prompts as text, or an image_type to recognize")
    return list(TARGETS[image_type])


def group_prompts(n_prompts: int, joint: bool, max_groups: int) -> NDArray[np.int64]:
    """Which prompts are decoded together, [G,N]: all of them (joint), or each alone."""
    if not joint and n_prompts > max_groups:
        raise ValueError(f"{n_prompts} prompts to decode one by one; send at most {max_groups}, or joint=true")
    prompts = np.arange(n_prompts)
    return prompts[None] if joint else prompts[:, None]
