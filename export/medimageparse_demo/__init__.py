"""The demo checkpoint: phantoms, prompts for them, training, and what `make demo` shows. No anatomy."""

import sys
from pathlib import Path

MODEL_REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"

# the server's launcher and tokenizer are deployed with the models, in no package
sys.path += [str(MODEL_REPOSITORY), str(MODEL_REPOSITORY / "tokenize_prompts" / "1")]
