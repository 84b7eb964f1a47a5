"""What the 3D original computes for one batch, step by step as it does it, needless work included: the baseline.

A plain reading of the published algorithm with the weights of our modules; nothing here is fast and nothing is served.
original_schedule_2d.py has what differs in 2D. Feature maps are tiled per prompt, so that every prompt projects all
keys and values again; all 16 masks of every prompt at full size ten times; a sampling round per prompt that is drawn
and thrown away; text at 77 positions; merging of prompts x slices x size x size probabilities with a loop in Python.
Attention averages its weights over the heads, for nobody. Left out: checks for not-a-number, copies between devices,
what only training needs.

B = slices x prompts, the prompts fastest; N tokens of a level's grid. Attention is sequence-first, as in the originals.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from medimageparse.focalnet import FocalModulation
from medimageparse.layers import Attention
from medimageparse.mask_decoder import N_LEVELS, SAMPLE_RATIO, MaskDecoder
from medimageparse.mask_features import MaskFeatures
from medimageparse.networks_2d import ImageFeatures
from medimageparse.networks_3d import ImageEncoder, PromptedMasks, TextFeatures
from medimageparse.seem_decoder import SeemDecoder, unit
from medimageparse.text_encoder import TextEncoder
from torch import Tensor

Tensors, Noise = tuple[Tensor, ...], Tensor | None
SAMPLED_FROM = 1.1  # a sigmoid above it would always be attended to: none ever is


def attention(module: Attention, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
    """[L, B, C] over [N, B, C]; blocked [B * heads, L, N]. The weights are averaged over the heads, for nobody."""
    projections = (module.in_proj_weight, module.in_proj_bias, None, None, False, 0.0)
    out = (module.out_proj.weight, module.out_proj.bias)
    arguments = (query, key, value, query.shape[-1], module.n_heads, *projections, *out)
    return F.multi_head_attention_forward(*arguments, training=False, need_weights=True, attn_mask=blocked)[0]


def per_head(blocked: Tensor, n_heads: int) -> Tensor:
    """[B, Q, N] -> [B * heads, Q, N]."""
    return blocked.unsqueeze(1).repeat(1, n_heads, 1, 1).flatten(0, 1)


def opened(blocked: Tensor) -> Tensor:
    """A row that hides everything hides nothing."""
    blocked = blocked.clone()
    blocked[torch.where(blocked.sum(-1) == blocked.shape[-1])] = False
    return blocked


def encode_text(encoder: TextEncoder, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, padded to all positions with the end mark -> ids, features of tokens [P, 77, C], of prompts [P, C]."""
    n_missing = encoder.positional_embedding.shape[0] - input_ids.shape[1]
    input_ids = F.pad(input_ids, (0, n_missing), value=encoder.token_embedding.num_embeddings - 1)
    x = encoder.token_embedding(input_ids) + encoder.positional_embedding
    causal = torch.full((x.shape[1], x.shape[1]), float("-inf"), device=x.device).triu(1)
    for block in encoder.resblocks:
        normed = block.ln_1(x).transpose(0, 1)
        x = x + attention(block.attn, normed, normed, normed, causal).transpose(0, 1)
        hidden = block.mlp.c_fc(block.ln_2(x))
        x = x + block.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))
    tokens = encoder.ln_final(x) @ encoder.lang_proj
    return input_ids, tokens, tokens[torch.arange(len(tokens)), input_ids.argmax(1)]


def text_3d(module: TextFeatures, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Tokens of every prompt [P, T, C], zeros behind the end of the shorter ones."""
    _, tokens, _ = encode_text(module.text_encoder, input_ids)
    rows = [of_prompt[: int(length)] for of_prompt, length in zip(tokens, attention_mask.sum(1), strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def class_embedding(encoder: TextEncoder, input_ids: Tensor) -> Tensor:
    """A class name in its sentences [81, T]; the 3D original encodes all 17 for every request and never reads them."""
    mean = unit(encode_text(encoder, input_ids)[2]).mean(0)
    return mean / mean.norm()


def modulate(module: FocalModulation, x: Tensor) -> Tensor:
    """Focal modulation of [B, H, W, C]."""
    n_levels = len(module.focal_layers)
    projected = module.f(x).permute(0, 3, 1, 2).contiguous()
    query, context, gates = projected.split([module.width, module.width, n_levels + 1], dim=1)
    summed: Tensor | float = 0
    for level, layer in enumerate(module.focal_layers):
        context = layer(context)
        summed = summed + context * gates[:, level : level + 1]
    everywhere = F.gelu(context.mean(2, keepdim=True).mean(3, keepdim=True))
    summed = (summed + everywhere * gates[:, n_levels:]) / (n_levels + 1)
    return module.proj((query * module.h(summed)).permute(0, 2, 3, 1).contiguous())


def backbone_and_pixels(module: ImageEncoder | ImageFeatures, last: MaskFeatures, image: Tensor) -> tuple[Tensor, ...]:
    """Normalised image [B, 3, H, W] -> mask features, made by the `last` convolution, and the three memories."""
    backbone, decoder = module.backbone, module.pixel_decoder
    tokens, features = backbone.patch_embed(image), []
    for index, (stage, norm) in enumerate(zip(backbone.stages, backbone.norms, strict=True)):
        for block in stage.blocks:
            tokens = tokens + block.gamma_1 * block.norm1(modulate(block.modulation, tokens))
            tokens = tokens + block.gamma_2 * block.norm2(block.mlp(tokens))
        features.append(norm(tokens).permute(0, 3, 1, 2).contiguous())
        if index < len(backbone.downsamples):
            tokens = backbone.downsamples[index](tokens.permute(0, 3, 1, 2).contiguous())
    coarsest = decoder.input_proj(features[3])
    grid = coarsest.shape[2:]
    sequence = coarsest.flatten(2).permute(2, 0, 1)
    positions = decoder.positions.unsqueeze(1)
    for layer in decoder.encoder:
        at = sequence + positions
        sequence = layer.norm1(sequence + attention(layer.self_attn, at, at, sequence))
        sequence = layer.norm2(sequence + layer.linear2(F.relu(layer.linear1(sequence))))
    y = F.relu(decoder.outputs["4"](sequence.permute(1, 2, 0).unflatten(2, grid)))
    pyramid = [y]
    for level in (3, 2, 1):
        lateral = decoder.laterals[str(level)](features[level - 1])
        y = F.relu(decoder.outputs[str(level)](lateral + F.interpolate(y, size=lateral.shape[2:], mode="nearest")))
        pyramid.append(y)
    return last(y), *pyramid[:3]


def image_3d(module: ImageEncoder, last: MaskFeatures, window: Tensor, digit_values: Tensor) -> tuple[Tensor, ...]:
    """window [K, S + 2, H, W], values by digits -> features of the S slices."""
    window = module.from_digits(window, digit_values)
    slices = torch.stack([window[1:-1], window[:-2], window[2:]], dim=1)
    return backbone_and_pixels(module, last, (slices - module.pixel_mean.mean()) / module.pixel_std.mean())


def predict_3d(decoder: MaskDecoder, queries: Tensor, mask_features: Tensor, n_round: int, noise: Noise) -> Tensors:
    """queries [Q, B, C] -> mask logits [B, Q, H, W] and what the next layer may not see, [B * heads, Q, N].

    noise, broadcastable to [B * heads, Q, N], replaces the draw of the round.
    """
    embeddings = decoder.mask_embed(decoder.decoder_norm(queries).transpose(0, 1))
    logits = torch.einsum("bqc,bchw->bqhw", embeddings, mask_features)
    grid = decoder.grids[n_round % N_LEVELS]
    shown = torch.sigmoid(F.interpolate(logits, size=(grid, grid), mode="bilinear", align_corners=False)).flatten(2)
    energy = torch.exp(shown * (n_round + 1))
    probabilities = energy / energy.sum(-1, keepdim=True)
    missed = per_head((1 - probabilities) ** int(SAMPLE_RATIO * shown.shape[-1]), decoder_heads(decoder))
    drawn = torch.rand_like(missed) if noise is None else noise.expand(missed.shape)
    always = per_head(shown > SAMPLED_FROM, decoder_heads(decoder))
    return logits, (drawn < missed) & ~always


def decoder_heads(decoder: MaskDecoder | SeemDecoder) -> int:
    return decoder.layers[0].self_attention.attention.n_heads


def feed_forward(module: torch.nn.Module, x: Tensor) -> Tensor:
    return module.norm(x + module.linear2(F.relu(module.linear1(x))))


def start_of_decoder(decoder: MaskDecoder | SeemDecoder, features: Sequence[Tensor]) -> tuple[Any, ...]:
    """Mask features; sources and positions of each level [N, B, C]; queries and their positions [Q, B, C]."""
    batch = len(features[0])
    levels = zip(features[1:], decoder.level_embed.weight, strict=True)
    sources = [memory.flatten(2).permute(2, 0, 1) + embedding for memory, embedding in levels]
    positions = [getattr(decoder, f"positions_{level}") for level in range(N_LEVELS)]
    queries = (decoder.query_features.weight, decoder.query_embeddings.weight)
    positions, queries = ([x.unsqueeze(1).repeat(1, batch, 1) for x in of_one] for of_one in (positions, queries))
    return features[0], sources, positions, *queries


def masks_3d(module: PromptedMasks, features: Tensors, text: Tensor, noise: Sequence[Tensor] | None = None) -> Tensors:
    """Features of S slices, text [P, T, C] -> mask and edge logits [S, P, H, W], existence logits [S, P].

    noise: of a layer [heads, 1, Q, N], for comparisons; the original draws anew for every slice and prompt.
    """
    decoder = module.mask_decoder
    n_slices, n_prompts = shape = len(features[0]), len(text)
    batch = n_slices * n_prompts
    tiled = [feature.repeat_interleave(n_prompts, dim=0) for feature in features]  # the whole maps, for every prompt
    mask_features, sources, positions, queries, at_queries = start_of_decoder(decoder, tiled)
    text = text.transpose(0, 1).repeat(1, n_slices, 1)  # [T, B, C]
    existence = decoder.classifier_query.weight.unsqueeze(1).repeat(1, batch, 1)
    embeddings = torch.cat([at_queries, text])
    n_queries = len(queries)

    def drawn(layer: int) -> Noise:  # ours has no noise for the round that is thrown away
        if noise is None or layer == len(decoder.layers):
            return None
        return noise[layer].squeeze(1).repeat(batch, 1, 1)

    def attend_to_all(attention_and_norm: torch.nn.Module, tokens: Tensor) -> Tensor:
        at = tokens + embeddings
        return attention_and_norm.norm(tokens + attention(attention_and_norm.attention, at, at, tokens))

    tokens = attend_to_all(decoder.initial_self_attention, torch.cat([queries, text]))
    queries, text = feed_forward(decoder.initial_ffn, tokens[:n_queries]), tokens[n_queries:]
    logits, blocked = predict_3d(decoder, queries, mask_features, 0, drawn(0))
    for i, layer in enumerate(decoder.layers):
        source, position = sources[i % N_LEVELS], positions[i % N_LEVELS]
        cross = layer.cross_attention
        attended = attention(cross.attention, queries + at_queries, source + position, source, opened(blocked))
        queries = cross.norm(queries + attended)
        tokens = attend_to_all(layer.self_attention, torch.cat([queries, text]))
        queries, text = feed_forward(layer.ffn, tokens[:n_queries]), tokens[n_queries:]
        logits, blocked = predict_3d(decoder, queries, mask_features, i + 1, drawn(i + 1))
        classifier = layer.classifier_attention
        attended = attention(classifier.attention, existence, tokens + embeddings, tokens)
        existence = feed_forward(layer.classifier_ffn, classifier.norm(existence + attended))
    n_masks = decoder.n_mask_queries
    masks, edges = logits[:, :n_masks].mean(1), logits[:, n_masks:].mean(1)
    return masks.unflatten(0, shape), edges.unflatten(0, shape), decoder.classifier(existence).reshape(shape)


def merge_3d(mask_logits: Tensor, existence: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mask logits [S, P, H, W], existence [S, P] -> labels [S, size, size] and scores [S, P], all slices at once."""
    enlarged = F.interpolate(mask_logits.transpose(0, 1), size=(size, size), mode="bicubic", antialias=True)
    probabilities, scores = torch.sigmoid(enlarged), torch.sigmoid(existence)  # [P, S, size, size]
    if len(probabilities) == 1:
        probabilities = probabilities * (scores.T > 0.5)[..., None, None]
    else:
        for n_slice, of_prompts in enumerate(scores):
            kept = suppress(probabilities[:, n_slice] > 0.5, of_prompts)
            probabilities[[k for k in range(len(of_prompts)) if k not in kept], n_slice] = 0
    stacked = torch.cat([torch.full_like(probabilities[:1], 0.5), probabilities])
    return stacked.argmax(0), scores


def suppress(masks: Tensor, scores: Tensor) -> set[int]:
    """The prompts of one slice that stay: best score first, what overlaps one that stays goes."""
    order, kept = scores.argsort(descending=True).tolist(), set()
    while order:
        best = order.pop(0)
        if scores[best].item() < 0.5:
            break
        if masks[best].sum().item() == 0:
            continue
        kept.add(best)
        order = [other for other in order if overlap(masks[best], masks[other]) <= 0.5]
    return kept


def overlap(a: Tensor, b: Tensor) -> float:
    union = (a | b).sum().item()
    return (a & b).sum().item() / union if union else 0.0
