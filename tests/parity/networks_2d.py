"""Files like v1_tiny.npz: the 2D networks."""

import json
import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from medimageparse.checkpoint import load_networks
from medimageparse.class_embeddings import class_token_ids
from medimageparse.networks_2d import MatchedMasks
from medimageparse.served_tensors import networks
from medimageparse.variants import Variant
from medimageparse_serving.image.pixels import to_pixels
from medimageparse_serving.image.probability_maps import neighbours
from medimageparse_serving.prompts.clip_tokenizer import tokenize
from PIL import Image
from scipy.special import expit
from torch import Tensor, nn

from .report import Golden, Report
from .running import Run, in_onnxruntime, in_torch

TOKEN_EMBEDDING = "sem_seg_head.predictor.lang_encoder.lang_encoder.token_embedding.weight"
MAX_LOGIT_SCALE = 100.0


def read_variant(weights: Mapping[str, Tensor], info: Mapping) -> Variant:
    """Sizes as the weights have them; only what they do not show is read from the configuration."""
    model = info["config"]["MODEL"]

    def count(pattern: str) -> int:
        return len({match[1] for match in (re.match(pattern, name) for name in weights) if match})

    return Variant(
        name="GOLDEN_2D",
        model="medimageparse",
        image_size=info["config"]["image_size"],
        backbone_width=len(weights["backbone.patch_embed.proj.bias"]),
        backbone_depths=tuple(count(rf"backbone\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(4)),
        width=len(weights["sem_seg_head.predictor.class_embed"]),
        n_heads=model["DECODER"]["NHEADS"],
        ffn_width=len(weights["sem_seg_head.predictor.transformer_ffn_layers.0.linear1.bias"]),
        n_encoder_layers=count(r"sem_seg_head\.pixel_decoder\.transformer\.encoder\.layers\.(\d+)\."),
        n_decoder_layers=count(r"sem_seg_head\.predictor\.transformer_ffn_layers\.(\d+)\."),
        text_width=weights[TOKEN_EMBEDDING].shape[1],
        text_heads=model["TEXT"]["HEADS"],
        text_layers=count(r"sem_seg_head\.predictor\.lang_encoder\.lang_encoder\.resblocks\.(\d+)\."),
        n_queries=len(weights["sem_seg_head.predictor.query_feat.weight"]),
        n_edge_queries=0,
        vocabulary_size=len(weights[TOKEN_EMBEDDING]),
        context_length=model["TEXT"]["CONTEXT_LENGTH"],
    )


def read_weights(golden: Golden, vocabulary_size: int) -> dict[str, Tensor]:
    """Weights under their published names; rows of the token embedding that no text uses are zero."""
    tensors = {
        name.removeprefix("sd/"): torch.from_numpy(golden[name]).float() for name in golden if name.startswith("sd/")
    }
    rows = tensors[TOKEN_EMBEDDING]
    tensors[TOKEN_EMBEDDING] = torch.zeros(vocabulary_size, rows.shape[1])
    tensors[TOKEN_EMBEDDING][torch.from_numpy(golden["token_rows"]).long()] = rows
    return tensors


def check_networks(golden: Golden, report: Report, onnx: bool) -> None:
    info = json.loads(golden["info_json"].tobytes())
    weights = read_weights(golden, info["config"]["vocab"])
    variant = read_variant(weights, info)
    modules = load_networks(weights, variant)
    check_classes(golden, report, modules["mask_decoder"])
    pixels = resize(golden["image"], variant.image_size)
    report.tensor("image_resized", pixels[0])
    table = networks(variant)
    runs = {name: in_onnxruntime(modules[name], table[name]) if onnx else in_torch(modules[name]) for name in table}
    case = next(case for case in info["cases"] if f"{case}/mask_features" in golden)  # the image is recorded once
    features = check_image(golden, report, modules["image_encoder"], runs["image_encoder"], pixels, case)
    mask_features = in_torch(modules["mask_decoder"].mask_decoder.mask_features)(features[0])[0]
    report.tensor(f"{case}/mask_features", mask_features)
    for case in info["cases"]:
        check_case(golden, report, case, info["cases"][case], modules, runs, features, not onnx)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """The original squeezes an image that is not square; a square one goes the way of the served model."""
    if image.shape[0] != image.shape[1]:
        image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    return np.array(to_pixels(image, size))  # a copy: what Pillow gives is not writable


def check_classes(golden: Golden, report: Report, matched_masks: MatchedMasks) -> None:
    """The order of templates is free, so the sentences of a class are compared as a set."""
    ids, mask = class_token_ids()
    ours = [
        {tuple(row[: n.sum()]) for row, n in zip(*of_class, strict=True)} for of_class in zip(ids, mask, strict=True)
    ]
    theirs = [{tuple(row[row >= 0]) for row in of_class} for of_class in golden["class_template_ids"]]
    report.same(
        "class_template_ids",
        [len(of_class) for of_class in theirs],
        [len(o & t) for o, t in zip(ours, theirs, strict=True)],
    )
    report.tensor("class_text_embeddings", matched_masks.class_embeddings.numpy())


def check_image(
    golden: Golden,
    report: Report,
    encoder: nn.Module,
    run: Run,
    pixels: np.ndarray,
    case: str,
) -> list[np.ndarray]:
    """Features of the image, recorded with this case; what lies before them is seen in PyTorch only."""
    seen: dict[str, Tensor | Sequence[Tensor]] = {}
    parts = {"backbone": encoder.backbone, "encoder": encoder.pixel_decoder.encoder[-1]}
    handles = [
        part.register_forward_hook(lambda _m, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
        for name, part in parts.items()
    ]
    features = run(pixels)
    for handle in handles:
        handle.remove()
    if seen:
        normalized, stages = seen["backbone"]
        report.tensor(f"{case}/input_normalised", normalized.numpy())
        for number, stage in enumerate(stages, start=2):
            report.tensor(f"{case}/res{number}", stage.numpy())
        tokens = seen["encoder"][1].transpose(1, 2)
        side = stages[-1].shape[-1]
        report.tensor(f"{case}/transformer_encoder_features", tokens.unflatten(2, (side, side)).numpy())
    for name, array in zip(("multi_scale_0", "multi_scale_1", "multi_scale_2"), features[1:], strict=True):
        report.tensor(f"{case}/{name}", array)
    return features


def check_case(
    golden: Golden,
    report: Report,
    case: str,
    prompts: list[str],
    modules: Mapping[str, nn.Module],
    runs: Mapping[str, Run],
    features: list[np.ndarray],
    with_states: bool,
) -> None:
    """One request: its prompts are decoded together, as the original does."""
    ids, mask = (golden[f"{case}/{name}"].astype(np.int64) for name in ("input_ids", "attention_mask"))
    longest = int(mask.sum(1).max())
    ids, mask = np.ascontiguousarray(ids[:, :longest]), np.ascontiguousarray(mask[:, :longest])
    found_ids, found_mask, _ = tokenize(prompts)
    report.same(f"{case}/input_ids", ids.tolist(), found_ids.tolist())
    report.same(f"{case}/attention_mask", mask.tolist(), found_mask.tolist())
    token_features, prompt_features = runs["text_encoder"](ids, mask)
    if with_states:  # the original also embeds the padding
        with torch.no_grad():
            report.tensor(f"{case}/token_emb", modules["text_encoder"].text_encoder(torch.from_numpy(ids)).numpy())
    report.tensor(f"{case}/class_emb", prompt_features)
    groups = np.arange(len(ids)).reshape(1, -1)
    matched_masks = modules["mask_decoder"]
    if with_states:
        check_states(golden, report, case, matched_masks, features, token_features, mask, prompt_features)
    mask_logits, similarities, matched, category_logits = runs["mask_decoder"](
        *features, token_features, mask, prompt_features, groups
    )
    if not with_states:
        check_matched(golden, report, case, matched_masks, matched, similarities, category_logits)
    report.same(f"{case}/matched_id", golden[f"{case}/matched_id"].tolist(), matched.tolist())
    report.same(f"{case}/pred_class", golden[f"{case}/pred_class"].tolist(), category_logits.argmax(1).tolist())
    height, width = golden[f"{case}/prob"].shape[1:]
    report.tensor(f"{case}/prob", np.stack([to_image(logits, height, width) for logits in mask_logits]))


def check_matched(
    golden: Golden,
    report: Report,
    case: str,
    matched_masks: MatchedMasks,
    matched: np.ndarray,
    similarities: np.ndarray,
    category_logits: np.ndarray,
) -> None:
    """Of what was recorded of all queries only the matched ones' is served: it replaces theirs in the recorded."""
    scale = min(matched_masks.logit_scale.detach().exp().item(), MAX_LOGIT_SCALE)
    logits, similarity = golden[f"{case}/pred_logits"].copy(), golden[f"{case}/similarity"].copy()
    logits[0, matched] = category_logits
    similarity[matched, np.arange(len(matched))] = scale * similarities
    report.tensor(f"{case}/pred_logits", logits)
    report.tensor(f"{case}/similarity", similarity)


def to_image(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    """Logits [s, s] -> probabilities [height, width] of an image that was squeezed, not padded."""
    return expit(resize_rows(resize_rows(logits, height).T, width).T)


def resize_rows(values: np.ndarray, n: int) -> np.ndarray:
    """As encode_probabilities enlarges a square along one axis."""
    low, high, share = neighbours(len(values), n, range(n))
    return values[low] * (1 - share)[:, None] + values[high] * share[:, None]


def check_states(
    golden: Golden,
    report: Report,
    case: str,
    matched_masks: MatchedMasks,
    features: list[np.ndarray],
    token_features: np.ndarray,
    mask: np.ndarray,
    prompt_features: np.ndarray,
) -> None:
    """The queries before each prediction, and what the last prediction says of all queries."""
    decoder = matched_masks.mask_decoder
    finest, *memories = map(torch.from_numpy, features)
    tokens = torch.from_numpy(token_features).flatten(0, 1)[None]
    with torch.no_grad():
        states = decoder(finest, memories, tokens, torch.from_numpy(mask).flatten()[None] != 0)
        captions = decoder.captions(states[-1])
        embeddings = decoder.mask_embeddings(states[-1])
        scale = matched_masks.logit_scale.exp()
        cosines, _ = matched_masks.matching((captions, torch.from_numpy(prompt_features)[None]))
        similarity = scale.clamp(max=MAX_LOGIT_SCALE) * cosines
        units = captions / (captions.norm(dim=-1, keepdim=True) + 1e-7)
        logits = scale * units @ matched_masks.class_embeddings.T
        masks = torch.einsum("bqc,bchw->bqhw", embeddings, decoder.mask_features(finest))
    report.tensor(f"{case}/query_states", np.concatenate([state.detach().numpy() for state in states]))
    report.tensor(f"{case}/pred_captions", captions.numpy())
    report.tensor(f"{case}/pred_maskembs", embeddings.numpy())
    report.tensor(f"{case}/pred_masks", masks.numpy())
    report.tensor(f"{case}/pred_logits", logits.numpy())
    report.tensor(f"{case}/similarity", similarity[0].numpy())
