"""The constant that category_logits are products with: one vector for each semantic class, 2D spec section 4.3.

A class is the mean of its name in many sentences. class_templates.txt has the 80 prompts for ImageNet that OpenAI
published with CLIP (MIT licence), lower case as the tokenizer makes them, and the bare name.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from medimageparse_contract.categories import CLASSES
from medimageparse_serving.prompts.clip_tokenizer import tokenize  # the server's, so that there is one
from torch import Tensor, nn

from medimageparse.seem_decoder import unit

TEMPLATES = Path(__file__).with_name("class_templates.txt")


def class_token_ids() -> tuple[np.ndarray, np.ndarray]:
    """Token ids and attention mask [classes, templates, T] of every class in every sentence."""
    templates = TEMPLATES.read_text("utf-8").splitlines()
    input_ids, attention_mask, _ = tokenize([template.format(name) for name in CLASSES for template in templates])
    shape = (len(CLASSES), len(templates), -1)
    return input_ids.reshape(shape), attention_mask.reshape(shape)


def class_embeddings(text_encoder: nn.Module) -> Tensor:
    """text_encoder as served (input_ids, attention_mask -> token_features, prompt_features) -> [classes, C]."""
    of_classes = [
        unit(text_encoder(torch.from_numpy(ids), torch.from_numpy(mask))[1]).mean(0)
        for ids, mask in zip(*class_token_ids(), strict=True)
    ]
    means = torch.stack(of_classes)
    return means / means.norm(dim=-1, keepdim=True)


def set_class_embeddings(modules: Mapping[str, nn.Module]) -> None:
    """Computes the constant from the text encoder and puts it into the mask decoder."""
    with torch.no_grad():
        modules["mask_decoder"].class_embeddings.copy_(class_embeddings(modules["text_encoder"]))
