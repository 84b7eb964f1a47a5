"""Published checkpoints and the demo's: one rename table, strict loading, what is ignored and why.

Formats: `biomedparse_v2.ckpt` (torch, key `state_dict`, prefix `model.`) and `.safetensors` with the same names.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medimageparse.errors import ExportError
from medimageparse.networks import build
from medimageparse.variants import PUBLISHED, VARIANTS, Variant

PREFIX = "model."

# Published name (spec section 9, without the prefix) and ours, whose first word is the served network. `*` stands for a
# number, the same on both sides; an entry that ends in a dot renames everything below it.
PIXEL_DECODER = "sem_seg_head.pixel_decoder."
PREDICTOR = "sem_seg_head.predictor."
DECODER = "mask_decoder_3d.mask_decoder."
RENAMES = (
    ("pixel_mean", "image_encoder_3d.pixel_mean"),
    ("pixel_std", "image_encoder_3d.pixel_std"),
    ("backbone.patch_embed.", "image_encoder_3d.backbone.patch_embed."),
    ("backbone.layers.*.blocks.", "image_encoder_3d.backbone.stages.*.blocks."),
    ("backbone.layers.*.downsample.", "image_encoder_3d.backbone.downsamples.*."),
    ("backbone.norm*.", "image_encoder_3d.backbone.norms.*."),
    (PIXEL_DECODER + "input_proj.", "image_encoder_3d.pixel_decoder.input_proj."),
    (PIXEL_DECODER + "transformer.encoder.layers.", "image_encoder_3d.pixel_decoder.encoder."),
    (PIXEL_DECODER + "adapter_*.weight", "image_encoder_3d.pixel_decoder.laterals.*.conv.weight"),
    (PIXEL_DECODER + "adapter_*.norm.", "image_encoder_3d.pixel_decoder.laterals.*.norm."),
    (PIXEL_DECODER + "layer_*.weight", "image_encoder_3d.pixel_decoder.outputs.*.conv.weight"),
    (PIXEL_DECODER + "layer_*.norm.", "image_encoder_3d.pixel_decoder.outputs.*.norm."),
    (PIXEL_DECODER + "mask_features.", "image_encoder_3d.pixel_decoder.mask_features."),
    (PREDICTOR + "language_encoder.lang_proj", "text_encoder_3d.text_encoder.lang_proj"),
    (PREDICTOR + "language_encoder.encoder_transformer.", "text_encoder_3d.text_encoder."),
    (PREDICTOR + "initial_self_attention_layer.self_attn.", DECODER + "initial_self_attention.attention."),
    (PREDICTOR + "initial_self_attention_layer.norm.", DECODER + "initial_self_attention.norm."),
    (PREDICTOR + "initial_ffn_layer.", DECODER + "initial_ffn."),
    (
        PREDICTOR + "transformer_cross_attention_layers.*.multihead_attn.",
        DECODER + "layers.*.cross_attention.attention.",
    ),
    (PREDICTOR + "transformer_cross_attention_layers.*.norm.", DECODER + "layers.*.cross_attention.norm."),
    (PREDICTOR + "transformer_self_attention_layers.*.self_attn.", DECODER + "layers.*.self_attention.attention."),
    (PREDICTOR + "transformer_self_attention_layers.*.norm.", DECODER + "layers.*.self_attention.norm."),
    (PREDICTOR + "transformer_ffn_layers.*.", DECODER + "layers.*.ffn."),
    (
        PREDICTOR + "classifier_cross_attention_layers.*.multihead_attn.",
        DECODER + "layers.*.classifier_attention.attention.",
    ),
    (PREDICTOR + "classifier_cross_attention_layers.*.norm.", DECODER + "layers.*.classifier_attention.norm."),
    (PREDICTOR + "classifier_ffn_layers.*.", DECODER + "layers.*.classifier_ffn."),
    (PREDICTOR + "query_feat_.", DECODER + "query_features."),
    (PREDICTOR + "query_embed_.", DECODER + "query_embeddings."),
    (PREDICTOR + "level_embed.", DECODER + "level_embed."),
    (PREDICTOR + "mask_embed.", DECODER + "mask_embed."),
    (PREDICTOR + "decoder_norm.", DECODER + "decoder_norm."),
    (PREDICTOR + "classifier.", DECODER + "classifier."),
    (PREDICTOR + "classifier_query.", DECODER + "classifier_query."),
)

BACKWARDS = tuple((ours, published) for published, ours in RENAMES)

# Present in published files, read by nothing at inference (spec section 0); a file may lack them.
IGNORED = {
    "sem_seg_head.predictor.class_embed": "its product is never used",
    "sem_seg_head.predictor.language_encoder.logit_scale": "only echoed in the original's output",
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


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Variant]:
    """Tensors under their published names, prefix removed, as float32; and the variant they are for.

    A `.safetensors` file names its variant in its metadata; everything else is the published size.
    """
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            variant = VARIANTS[(file.metadata() or {}).get("variant", PUBLISHED.name)]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    else:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if "state_dict" not in content:
            raise CheckpointError("the file has no key `state_dict`; send biomedparse_v2.ckpt or a .safetensors file")
        variant, tensors = PUBLISHED, content["state_dict"]
    return {name.removeprefix(PREFIX): tensor.float() for name, tensor in tensors.items()}, variant


def load_networks(tensors: Mapping[str, Tensor], variant: Variant) -> dict[str, nn.Module]:
    """The variant's networks with the published tensors in them, strictly: nothing missing, unknown or mis-shaped."""
    given = {rename(name, RENAMES): name for name in tensors if name not in IGNORED}
    modules = nn.ModuleDict(build(variant))
    expected = modules.state_dict()
    missing = [rename(name, BACKWARDS) for name in expected if name not in given]
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
    modules.load_state_dict({ours: tensors[name] for ours, name in given.items()}, strict=True)
    return dict(modules.items())


def published_state(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All tensors of the networks under their published names: the rename table read backwards."""
    return {rename(name, BACKWARDS): tensor for name, tensor in nn.ModuleDict(modules).state_dict().items()}


def save_checkpoint(path: Path, modules: Mapping[str, nn.Module], variant: Variant) -> None:
    """Writes a `.safetensors` file under published names; float16, so weights must have been rounded to it before."""
    state = {name: tensor.half().contiguous() for name, tensor in published_state(modules).items()}
    save_file(state, path, metadata={"variant": variant.name, "format": "pt"})
