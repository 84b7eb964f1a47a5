"""The demo checkpoint: phantoms, prompts for them, training, and what `make demo` shows. No anatomy."""

from pathlib import Path

MODEL_REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"
