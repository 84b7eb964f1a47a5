"""The networks of a variant, fresh or with random weights, keyed by the name they are served under."""

import torch
from torch import nn

from medimageparse import networks_2d, networks_3d
from medimageparse.class_embeddings import set_class_embeddings
from medimageparse.variants import Variant

MODULES = {
    "medimageparse_3d": {
        "text_encoder_3d": networks_3d.TextFeatures,
        "image_encoder_3d": networks_3d.ImageEncoder,
        "mask_decoder_3d": networks_3d.PromptedMasks,
    },
    "medimageparse": {
        "text_encoder": networks_2d.PromptFeatures,
        "image_encoder": networks_2d.ImageFeatures,
        "mask_decoder": networks_2d.MatchedMasks,
    },
}


def build(variant: Variant) -> dict[str, nn.Module]:
    """The three modules of a variant with fresh weights, in evaluation mode, keyed by model name."""
    return {name: module(variant).eval() for name, module in MODULES[variant.model].items()}


def build_random(variant: Variant, seed: int) -> dict[str, nn.Module]:
    """The three modules with seeded random weights, scaled so that no branch is idle: for tests and benchmarks."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        modules = build(variant)
        for name, parameter in nn.ModuleDict(modules).named_parameters():
            if "gamma_" in name:
                nn.init.uniform_(parameter, 0.1, 0.5)
            elif "query_" in name:
                nn.init.normal_(parameter)
            elif name.endswith((".mask_embed.layers.2.weight", ".classifier.weight", ".lang_proj")):
                nn.init.normal_(parameter, std=2 * parameter.shape[-1] ** -0.5)
            elif "decoder" in name and parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        for name, parameter in nn.ModuleDict(modules).named_parameters():
            if name.endswith("bias") and not parameter.any():  # or a comparison would not miss it
                nn.init.normal_(parameter, std=0.01)
        if variant.model == "medimageparse":
            set_class_embeddings(modules)
        else:
            nn.init.ones_(modules["mask_decoder_3d"].mask_decoder.classifier.bias)
    return modules
