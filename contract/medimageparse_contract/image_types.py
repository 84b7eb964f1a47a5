"""The image types that MedImageParse 2D was trained on, with the targets that recognition looks for in each."""

from typing import Literal, TypeAlias

ImageType: TypeAlias = Literal[
    "CT-Abdomen",
    "CT-Chest",
    "CT-Liver",
    "MRI-Abdomen",
    "MRI-Cardiac",
    "MRI-FLAIR-Brain",
    "MRI-T1-Gd-Brain",
    "Pathology",
    "X-Ray-Chest",
    "Ultrasound-Cardiac",
    "Endoscopy",
    "Fundus",
    "Dermoscopy",
    "OCT",
]

ABDOMINAL_CT = (
    "postcava", "aorta", "right kidney", "left kidney", "duodenum", "pancreas", "liver", "spleen", "stomach",
    "gallbladder", "left adrenal gland", "right adrenal gland", "esophagus",
)  # fmt: skip
ABDOMINAL_MRI = (
    "aorta", "postcava", "right kidney", "duodenum", "left kidney", "liver", "pancreas", "gallbladder", "stomach",
    "spleen", "left adrenal gland", "right adrenal gland", "esophagus",
)  # fmt: skip

# names and order are upstream's: equal p-values are settled by the order
TARGETS: dict[ImageType, tuple[str, ...]] = {
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
