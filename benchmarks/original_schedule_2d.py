"""What the 2D original computes where original_schedule.py, its twin in 3D, does something else.

Masks, captions and classes of all queries ten times; an attention mask that hides nothing in every layer.
"""

import torch
import torch.nn.functional as F
from medimageparse.mask_decoder import N_LEVELS
from medimageparse.mask_features import MaskFeatures
from medimageparse.networks_2d import ImageFeatures, MatchedMasks, PromptFeatures
from medimageparse.seem_decoder import unit
from original_schedule import (
    Tensors,
    attention,
    backbone_and_pixels,
    decoder_heads,
    encode_text,
    feed_forward,
    opened,
    per_head,
    start_of_decoder,
)
from torch import Tensor


def text_2d(module: PromptFeatures, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens of all prompts in a row [L, C] and the vector of each prompt [P, C]."""
    _, tokens, prompt_features = encode_text(module.text_encoder, input_ids)
    return tokens[:, : attention_mask.shape[1]][attention_mask.bool()], prompt_features


def image_2d(module: ImageFeatures, last: MaskFeatures, pixels: Tensor) -> tuple[Tensor, ...]:
    """pixels [1, H, W, 3] uint8 -> features."""
    image = (pixels.float() - module.pixel_mean) / module.pixel_std
    return backbone_and_pixels(module, last, image.permute(0, 3, 1, 2))


def masks_2d(module: MatchedMasks, features: Tensors, tokens: Tensor, prompt_features: Tensor) -> Tensors:
    """Features of an image, tokens of all prompts [L, C] -> mask logits, similarities, matched queries, categories."""
    decoder = module.mask_decoder
    n_heads = decoder_heads(decoder)
    mask_features, sources, positions, queries, at_queries = start_of_decoder(decoder, features)
    tokens = tokens.unsqueeze(1)
    embeddings = torch.cat([at_queries, tokens])
    n_queries, length = len(queries), len(embeddings)

    def predict(queries: Tensor, n_round: int) -> Tensors:
        normed = decoder.decoder_norm(queries.transpose(0, 1))
        captions = normed @ decoder.class_embed
        logits = torch.einsum("bqc,bchw->bqhw", decoder.mask_embed(normed), mask_features)
        classes = unit(captions) @ module.class_embeddings.T * module.logit_scale.exp()
        grid = decoder.grids[n_round % N_LEVELS]
        shown = F.interpolate(logits, size=(grid, grid), mode="bilinear", align_corners=False)
        return logits, captions, classes, per_head(shown.sigmoid().flatten(2) < 0.5, n_heads)

    rounds = [predict(queries, 0)]  # all of them are kept
    for i, layer in enumerate(decoder.layers):
        source, position = sources[i % N_LEVELS], positions[i % N_LEVELS]
        cross = layer.cross_attention
        blocked = opened(rounds[-1][3])
        attended = attention(cross.attention, queries + at_queries, source + position, source, blocked)
        queries = cross.norm(queries + attended)
        sequence = torch.cat([queries, tokens])
        at, nothing = sequence + embeddings, tokens.new_zeros(n_heads, length, length, dtype=torch.bool)
        own = layer.self_attention
        sequence = own.norm(sequence + attention(own.attention, at, at, sequence, nothing))
        sequence = feed_forward(layer.ffn, sequence)
        queries, tokens = sequence[:n_queries], sequence[n_queries:]
        rounds.append(predict(queries, i + 1))
    logits, captions, classes, _ = (of_one.squeeze(0) for of_one in rounds[-1])
    cosines = unit(captions) @ unit(prompt_features).T  # [Q, P]; the original scales them before it looks for the best
    matched = cosines.argmax(0)
    return logits[matched], cosines[matched, torch.arange(len(matched))], matched, classes[matched]
