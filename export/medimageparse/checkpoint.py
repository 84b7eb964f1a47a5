"""Tensors by their published names -> networks: a rename table for each model, strict loading, what is ignored and why.

`checkpoint_files.py` reads the files."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from medimageparse.class_embeddings import set_class_embeddings
from medimageparse.errors import ExportError
from medimageparse.networks import build
from medimageparse.variants import Variant

# Published name (spec section 9, without the prefix) and ours, whose first word is the network, for both models without
# the `_3d` it is served under. `*` stands for a number, the same on both sides; an entry that ends in a dot renames
# everything below it.
PIXEL_DECODER = "sem_seg_head.pixel_decoder."
PREDICTOR = "sem_seg_head.predictor."
DECODER = "mask_decoder.mask_decoder."
SHARED = (
    ("backbone.patch_embed.", "image_encoder.backbone.patch_embed."),
    ("backbone.layers.*.blocks.", "image_encoder.backbone.stages.*.blocks."),
    ("backbone.layers.*.downsample.", "image_encoder.backbone.downsamples.*."),
    ("backbone.norm*.", "image_encoder.backbone.norms.*."),
    (PIXEL_DECODER + "input_proj.", "image_encoder.pixel_decoder.input_proj."),
    (PIXEL_DECODER + "transformer.encoder.layers.", "image_encoder.pixel_decoder.encoder."),
    (PIXEL_DECODER + "adapter_*.weight", "image_encoder.pixel_decoder.laterals.*.conv.weight"),
    (PIXEL_DECODER + "adapter_*.norm.", "image_encoder.pixel_decoder.laterals.*.norm."),
    (PIXEL_DECODER + "layer_*.weight", "image_encoder.pixel_decoder.outputs.*.conv.weight"),
    (PIXEL_DECODER + "layer_*.norm.", "image_encoder.pixel_decoder.outputs.*.norm."),
    (PIXEL_DECODER + "mask_features.", DECODER + "mask_features."),
    (
        PREDICTOR + "transformer_cross_attention_layers.*.multihead_attn.",
        DECODER + "layers.*.cross_attention.attention.",
    ),
    (PREDICTOR + "transformer_cross_attention_layers.*.norm.", DECODER + "layers.*.cross_attention.norm."),
    (PREDICTOR + "transformer_self_attention_layers.*.self_attn.", DECODER + "layers.*.self_attention.attention."),
    (PREDICTOR + "transformer_self_attention_layers.*.norm.", DECODER + "layers.*.self_attention.norm."),
    (PREDICTOR + "transformer_ffn_layers.*.", DECODER + "layers.*.ffn."),
    (PREDICTOR + "level_embed.", DECODER + "level_embed."),
    (PREDICTOR + "mask_embed.", DECODER + "mask_embed."),
    (PREDICTOR + "decoder_norm.", DECODER + "decoder_norm."),
)
RENAMES = {
    "medimageparse_3d": (
        *SHARED,
        ("pixel_mean", "image_encoder.pixel_mean"),
        ("pixel_std", "image_encoder.pixel_std"),
        (PREDICTOR + "language_encoder.lang_proj", "text_encoder.text_encoder.lang_proj"),
        (PREDICTOR + "language_encoder.encoder_transformer.", "text_encoder.text_encoder."),
        (PREDICTOR + "initial_self_attention_layer.self_attn.", DECODER + "initial_self_attention.attention."),
        (PREDICTOR + "initial_self_attention_layer.norm.", DECODER + "initial_self_attention.norm."),
        (PREDICTOR + "initial_ffn_layer.", DECODER + "initial_ffn."),
        (
            PREDICTOR + "classifier_cross_attention_layers.*.multihead_attn.",
            DECODER + "layers.*.classifier_attention.attention.",
        ),
        (PREDICTOR + "classifier_cross_attention_layers.*.norm.", DECODER + "layers.*.classifier_attention.norm."),
        (PREDICTOR + "classifier_ffn_layers.*.", DECODER + "layers.*.classifier_ffn."),
        (PREDICTOR + "query_feat_.", DECODER + "query_features."),
        (PREDICTOR + "query_embed_.", DECODER + "query_embeddings."),
        (PREDICTOR + "classifier.", DECODER + "classifier."),
        (PREDICTOR + "classifier_query.", DECODER + "classifier_query."),
    ),
    "medimageparse": (
        *SHARED,
        (PREDICTOR + "lang_encoder.logit_scale", "mask_decoder.logit_scale"),
        (PREDICTOR + "lang_encoder.lang_proj", "text_encoder.text_encoder.lang_proj"),
        (PREDICTOR + "lang_encoder.lang_encoder.", "text_encoder.text_encoder."),
        (PREDICTOR + "query_feat.", DECODER + "query_features."),
        (PREDICTOR + "query_embed.", DECODER + "query_embeddings."),
        (PREDICTOR + "class_embed", DECODER + "class_embed"),
    ),
}

BACKWARDS = {model: tuple((ours, published) for published, ours in table) for model, table in RENAMES.items()}

# Present in published files, read by nothing at inference (3D spec section 0, 2D spec sections 5.6 and 9); a file may
# lack them. An entry that ends in a dot stands for everything below it.
IGNORED = {
    "medimageparse_3d": {
        PREDICTOR + "class_embed": "its product is never used",
        PREDICTOR + "language_encoder.logit_scale": "only echoed in the original's output",
    },
    "medimageparse": {
        PREDICTOR + "lang_encoder.biomed_encoder.": "a second text encoder that is built and never called",
        PREDICTOR + "pn_indicator.": "for prompts by clicks and strokes, which this model does not take",
        PREDICTOR + "mask_sptial_embed.": "for prompts by clicks and strokes",
        PREDICTOR + "spatial_embed.": "for prompts by clicks and strokes",
        PREDICTOR + "spatial_featured.": "for prompts by clicks and strokes",
        "dilation_kernel": "for prompts by clicks and strokes",
        "criterion.": "weights of the training loss",
    },
}


class CheckpointError(ExportError):
    """The checkpoint does not hold exactly the tensors of the variant; the message names the first ones that differ."""


def rename(name: str, table: Iterable[tuple[str, str]]) -> str:
    """A tensor name, translated from a table's first column to its second; CheckpointError if the table lacks it."""
    for source, target in table:
        pattern = re.escape(source).replace(r"\*", r"(\d+)") + ("" if source.endswith(".") else "$")
        found = re.match(pattern, name)
        if found:
            return target.replace("*", "".join(found.groups())) + name[found.end() :]
    raise CheckpointError(f"unknown tensor {name}: it is neither in the rename table nor listed as ignored")


def is_ignored(name: str, model: str) -> bool:
    return any(name == entry or (entry.endswith(".") and name.startswith(entry)) for entry in IGNORED[model])


def parts_of(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """The networks as the rename tables call them."""
    return nn.ModuleDict({name.removesuffix("_3d"): module for name, module in modules.items()})


def load_networks(tensors: Mapping[str, Tensor], variant: Variant) -> dict[str, nn.Module]:
    """The variant's networks with the published tensors in them, strictly: nothing missing, unknown or mis-shaped."""
    renames, backwards = RENAMES[variant.model], BACKWARDS[variant.model]
    given = {rename(name, renames): name for name in tensors if not is_ignored(name, variant.model)}
    modules = build(variant)
    parts = parts_of(modules)
    expected = parts.state_dict()
    missing = [rename(name, backwards) for name in expected if name not in given]
    if missing:
        raise CheckpointError(
            f"{len(missing)} tensors of the {variant.name} variant are missing, the first is {missing[0]}"
        )
    extra = [name for ours, name in given.items() if ours not in expected]
    if extra:
        raise CheckpointError(
            f"{len(extra)} tensors do not belong to the {variant.name} variant, the first is {extra[0]}"
        )
    for ours, name in given.items():
        wanted, found = tuple(expected[ours].shape), tuple(tensors[name].shape)
        if wanted != found:
            raise CheckpointError(f"{name} has shape {found}, the {variant.name} variant needs {wanted}")
    parts.load_state_dict({ours: tensors[name] for ours, name in given.items()}, strict=True)
    if variant.model == "medimageparse":
        set_class_embeddings(modules)
    return modules


def published_state(modules: Mapping[str, nn.Module], model: str) -> dict[str, Tensor]:
    """All tensors of a public model's networks under their published names: the rename table read backwards."""
    return {rename(name, BACKWARDS[model]): tensor for name, tensor in parts_of(modules).state_dict().items()}


def save_checkpoint(path: Path, modules: Mapping[str, nn.Module], variant: Variant) -> None:
    """Writes a `.safetensors` file under published names; float16, so weights must have been rounded to it before."""
    state = {name: tensor.half().contiguous() for name, tensor in published_state(modules, variant.model).items()}
    save_file(state, path, metadata={"variant": variant.name, "format": "pt"})
