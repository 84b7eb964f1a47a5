"""Weights as people save them -> tensors by their published names, and the variant that they are for.

Published: `biomedparse_v2.ckpt` (key `state_dict`, prefix `model.`) and `biomedparse_v1.pt` (tensors by name). A
fine-tuned checkpoint has the same tensors: in a plain dict or under a key, with the prefixes that wrappers of training
add, as a torch file or `.safetensors`, alone or in a folder as MLflow lays it out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medimageparse.checkpoint import CheckpointError
from medimageparse.variants import PUBLISHED, PUBLISHED_2D, VARIANTS, Variant

ENDINGS = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
KEYS = ("state_dict", "model_state_dict", "model", "module", "network")  # of what a training program saves
PREFIXES = ("model.", "module.", "_orig_mod.", "network.")  # of Lightning, DataParallel, torch.compile and others
# the first part of a name that only one of the models has
TEXT_ENCODERS = {
    "sem_seg_head.predictor.language_encoder.": PUBLISHED.model,
    "sem_seg_head.predictor.lang_encoder.": PUBLISHED_2D.model,
}
WIDTH = "backbone.patch_embed.proj.weight"  # [width, 3, 7, 7]; no two variants of a model have the same


def weights_file(path: Path) -> Path:
    """The file itself, or the only file of weights in a folder."""
    if not path.is_dir():
        return path
    candidates = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix in ENDINGS)
    if not candidates:
        raise CheckpointError(f"the folder has no file of weights ({', '.join(ENDINGS)})")
    if len(candidates) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in candidates)
        raise CheckpointError(f"the folder has {len(candidates)} files of weights, name one of them: {names}")
    return candidates[0]


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Variant]:
    """Tensors under their published names as float32, and the variant they are for: all of them, nothing is dropped.

    Raises CheckpointError for what holds no or several sets of tensors; whether they fit is found when they are loaded.
    """
    tensors = read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        published = without_prefixes(name)
        if published in named:
            raise CheckpointError(f"the file has {published} twice, with and without a prefix; save one set of weights")
        named[published] = tensor.float()
    return named, variant_of(named)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise CheckpointError("the file is not a whole .safetensors file") from error


def read_torch_file(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # of a damaged file torch raises whatever it stumbles over
            raise CheckpointError(
                "the file is no whole torch file, or it holds more than tensors, numbers and texts: what could run "
                "code is not loaded; save model.state_dict() alone"
            ) from error
    return tensors_in(content)


def tensors_in(content: Any) -> dict[str, Tensor]:
    """The one set of tensors in what was saved: the dict itself, or what lies under one of the usual keys."""
    while isinstance(content, Mapping) and not is_set(content):
        sets = [key for key in KEYS if isinstance(content.get(key), Mapping) and content[key]]
        if len(sets) > 1:
            raise CheckpointError(f"the file has several sets of weights, save one of them: {', '.join(sets)}")
        if not sets:
            break
        content = content[sets[0]]
    if not isinstance(content, Mapping) or not is_set(content):
        raise CheckpointError(
            "the file holds something else than tensors by name; "
            "send biomedparse_v2.ckpt, biomedparse_v1.pt or a model's state_dict()"
        )
    return dict(content)


def is_set(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(name, str) and isinstance(t, Tensor) for name, t in content.items())


def without_prefixes(name: str) -> str:
    """The published name: what wrappers have put in front of it, in any order, is taken off."""
    while True:
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            return name
        name = name.removeprefix(prefix)


def variant_of(tensors: Mapping[str, Tensor]) -> Variant:
    """The model by the name of its text encoder, the size by the width of its backbone."""
    models = {model for prefix, model in TEXT_ENCODERS.items() if any(name.startswith(prefix) for name in tensors)}
    if len(models) != 1 or WIDTH not in tensors:
        raise CheckpointError(
            "the tensors are neither MedImageParse's nor MedImageParse 3D's; "
            f"the first is {next(iter(tensors), 'missing')}"
        )
    [model], width = models, tensors[WIDTH].shape[0]
    of_model = {variant.backbone_width: variant for variant in VARIANTS.values() if variant.model == model}
    if width not in of_model:
        raise CheckpointError(f"the backbone is {width} wide; known are {', '.join(map(str, sorted(of_model)))}")
    return of_model[width]
