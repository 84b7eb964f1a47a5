"""What the demo checkpoints were trained on: words, and structures by the first of their names."""

from collections.abc import Mapping
from pathlib import Path

from medimageparse_contract.catalogue import structures
from medimageparse_contract.models import MODEL_2D, MODEL_3D
from medimageparse_serving.prompts.vocabulary import FILE, words_of

from medimageparse_demo import image_prompts, prompts
from medimageparse_demo.images import KIND_STRUCTURES
from medimageparse_demo.phantoms import MODALITY_STRUCTURES

PRESET = "demo-ct"
# kind of image -> the structures in it, as one asks for them
KNOWN: Mapping[str, Mapping[str, tuple[str, ...]]] = {MODEL_3D: MODALITY_STRUCTURES, MODEL_2D: KIND_STRUCTURES}


def known_words(model: str) -> list[str]:
    """All words of all prompts of a model's training, of structures that it was taught to find absent too.

    And those of the set `demo-ct`, whose sentences it was seen to understand.
    """
    module = prompts if model == MODEL_3D else image_prompts
    sentences = [sentence for name in module.NAMES for sentence in module.training_prompts(name)]
    sentences += [row.prompt for row in structures("3d", preset=PRESET)]
    return sorted({word for sentence in sentences for word in words_of(sentence)})


def write_words(repository: Path) -> None:
    """Lays the lists beside the graphs."""
    for model in KNOWN:
        (repository / model / "1" / FILE).write_text("".join(f"{word}\n" for word in known_words(model)), "utf-8")
