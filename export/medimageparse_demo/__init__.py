"""The demo checkpoint: phantoms, prompts for them, training, and what `make demo` shows. No anatomy."""

import sys
from pathlib import Path

MODEL_REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"

# the server's launcher and its steps' modules are deployed with the models, in no package
STEPS = ("tokenize_prompts", "medimageparse_3d", "decode_image", "medimageparse")
sys.path += [str(MODEL_REPOSITORY), *(str(MODEL_REPOSITORY / step / "1") for step in STEPS)]
