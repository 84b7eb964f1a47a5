"""Numbers that the model cards and the published result files print (`evaluation.md`, section 7)."""

# MedImageParse 3D: Dice in percent on AMOS22, by the catalogue's ids
AMOS_CT = {
    "aorta": 95.27, "urinary_bladder": 90.17, "duodenum": 83.27, "esophagus": 87.11, "gallbladder": 85.96,
    "left_adrenal_gland": 79.48, "left_kidney": 96.39, "liver": 97.71, "pancreas": 88.42, "inferior_vena_cava": 92.02,
    "right_adrenal_gland": 79.39, "right_kidney": 96.88, "spleen": 96.91, "stomach": 91.49,
}  # fmt: skip
AMOS_MRI = {
    "aorta": 95.73, "duodenum": 76.03, "esophagus": 81.38, "gallbladder": 66.58, "left_adrenal_gland": 63.35,
    "left_kidney": 96.92, "liver": 97.65, "pancreas": 88.70, "inferior_vena_cava": 87.26, "right_adrenal_gland": 68.14,
    "right_kidney": 96.69, "spleen": 96.88, "stomach": 88.93,
}  # fmt: skip
AMOS = {"CT": AMOS_CT, "MR": AMOS_MRI}
AMOS_AVERAGE = {"CT": 90.00, "MR": 84.94}  # as printed; of CT it is not the mean of the columns

# MedImageParse 3D: the challenge's validation set, by modality
CHALLENGE = {
    "CT": {"DSC": 0.8512, "NSD": 0.8965, "F1": 0.5119, "DSC_TP": 0.6749},
    "MR": {"DSC": 0.7396, "NSD": 0.8664, "F1": 0.5317, "DSC_TP": 0.7053},
    "Microscopy": {"F1": 0.1939, "DSC_TP": 0.6552},
    "PET": {"F1": 0.3132, "DSC_TP": 0.7185},
    "US": {"DSC": 0.9050, "NSD": 0.9135},
}

# MedImageParse 2D: published results by modality: median over tasks of the tasks' median Dice, mean over tasks of the
# tasks' mean Dice, mean over masks
IMAGES = {
    "All": (0.8936, 0.8399, 0.8720),
    "CT": (0.9042, 0.8344, 0.8637),
    "MRI": (0.8916, 0.8322, 0.8260),
    "X-Ray": (0.9852, 0.9686, 0.9767),
    "pathology": (0.8404, 0.7615, 0.7565),
    "ultrasound": (0.9170, 0.8672, 0.9103),
    "fundus": (0.9025, 0.8940, 0.8940),
    "endoscope": (0.9737, 0.9103, 0.9262),
    "dermoscopy": (0.9526, 0.9441, 0.9437),
    "OCT": (0.8944, 0.8663, 0.8663),
}

REPRODUCED, NEAR = 0.005, 0.02  # largest difference, as a share of 1


def verdict(difference: float) -> str:
    """What a difference from a printed number says; upstream draws fresh noise at each run."""
    size = round(abs(difference), 9)  # 0.005 itself is reproduced, whatever the last bit says
    return "reproduced" if size <= REPRODUCED else "near" if size <= NEAR else "differs"
