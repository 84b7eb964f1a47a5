"""The semantic categories of MedImageParse 2D, in the order of its networks' columns."""

CATEGORIES = (
    "liver", "lung", "kidney", "pancreas", "heart anatomies", "brain anatomies", "eye anatomies", "vessel",
    "other organ", "tumor", "infection", "other lesion", "fluid disturbance", "other abnormality",
    "histology structure", "other",
)  # fmt: skip
CLASSES = (*CATEGORIES, "background")  # a prompt's mask is asked for, so the last is never an answer
