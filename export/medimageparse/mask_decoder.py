"""BoltzFormer mask decoder (Zhao et al. 2025, Boltzmann attention sampling), spec section 5.

All prompts of a slice are decoded together. Whatever does not depend on the prompt is computed once per slice: keys
and values of the cross-attention and the mask features reduced to each level's grid (spec section 7, remedies 2 and 3).
Final masks come from averaged query embeddings (remedy 4) and no sampling round is wasted (remedy 5).

Dimensions: S slices, P prompts, B = S * P, Q queries, T text tokens, C channels, N tokens of a level's grid.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medimageparse.decisions import Decision
from medimageparse.layers import (
    Attention,
    FeatureMap,
    FeedForward,
    LayerNorm,
    MapAttention,
    apply_linear,
    sine_positions,
)
from medimageparse.mask_features import MaskFeatures

N_LEVELS = 3
SAMPLE_RATIO = 0.1  # of a level's tokens are drawn for each query, with replacement


class SelfAttention(nn.Module):
    """Post-norm self-attention of queries and text, with their embeddings added to queries and keys."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.attention = Attention(width, n_heads)
        self.norm = LayerNorm(width)

    def forward(self, tokens: Tensor, embeddings: Tensor, blocked: Tensor | None = None) -> Tensor:
        at = tokens + embeddings
        return self.norm(tokens + self.attention(at, at, tokens, blocked))


class CrossAttention(nn.Module):
    """Post-norm attention of all prompts' queries to one slice's features, keys and values projected once per slice."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.attention = MapAttention(width, n_heads)
        self.norm = LayerNorm(width)

    def forward(self, queries: Tensor, query_embeddings: Tensor, memory: FeatureMap, blocked: Tensor) -> Tensor:
        """queries [B, Q, C], a memory of S slices, blocked [S, heads, P, Q, N] -> [B, Q, C]."""
        n_slices, width, _ = memory.features.shape
        per_slice = (queries + query_embeddings).reshape(n_slices, -1, width)  # [S, P * Q, C]
        attended = self.attention(per_slice, memory, blocked.flatten(2, 3))
        return self.norm(queries + attended.reshape(queries.shape))


class ClassifierAttention(nn.Module):
    """Post-norm attention of the existence token to queries and text; the token carries no position."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.attention = Attention(width, n_heads)
        self.norm = LayerNorm(width)

    def forward(self, existence: Tensor, tokens: Tensor, embeddings: Tensor) -> Tensor:
        return self.norm(existence + self.attention(existence, tokens + embeddings, tokens))


class DecoderLayer(nn.Module):
    def __init__(self, width: int, n_heads: int, ffn_width: int):
        super().__init__()
        self.cross_attention = CrossAttention(width, n_heads)
        self.self_attention = SelfAttention(width, n_heads)
        self.ffn = FeedForward(width, ffn_width)
        self.classifier_attention = ClassifierAttention(width, n_heads)
        self.classifier_ffn = FeedForward(width, ffn_width)

    def forward(
        self,
        queries: Tensor,
        text: Tensor,
        existence: Tensor,
        embeddings: Tensor,
        memory: FeatureMap,
        blocked: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """queries [B, Q, C], text [B, T, C], existence [B, 1, C], embeddings [B, Q + T, C] -> first three, updated."""
        n_queries = queries.shape[1]
        queries = self.cross_attention(queries, embeddings[:, :n_queries], memory, blocked)
        tokens = self.self_attention(torch.cat([queries, text], dim=1), embeddings)
        existence = self.classifier_ffn(self.classifier_attention(existence, tokens, embeddings))
        return self.ffn(tokens[:, :n_queries]), tokens[:, n_queries:], existence


def memory_maps(decoder: nn.Module, memories: Sequence[Tensor]) -> list[FeatureMap]:
    """Memories [S, C, grid, grid] of all levels of a decoder, as its cross-attention takes them."""
    maps = []
    for level, (memory, shared) in enumerate(zip(memories, decoder.level_embed.weight, strict=True)):
        positions = getattr(decoder, f"positions_{level}").to(memory.dtype)
        maps.append(FeatureMap(memory.flatten(2), positions.T, shared))
    return maps


class MaskEmbed(nn.Module):
    """Three-layer perceptron from normalised queries to mask embeddings."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = ((layer.weight, layer.bias) for layer in self.layers)
        return apply_linear(F.relu(apply_linear(F.relu(apply_linear(x, *first)), *second)), *last)


class BoltzmannSampling(Decision):
    """Which grid tokens each query may not see: those that none of n = N / 10 draws hits.

    The draws are from softmax(inverse_temperature * sigmoid(logits)).
    """

    def evidence(self, mask_logits: Tensor, inverse_temperature: int) -> Tensor:
        """How probably no draw hits a token, [S, P, Q, N] float32 like the logits."""
        n_draws = int(SAMPLE_RATIO * mask_logits.shape[-1])
        energy = inverse_temperature * torch.sigmoid(mask_logits.float())
        return (1 - energy.softmax(-1)) ** n_draws

    def decide(self, missed: Tensor, noise: Tensor) -> Tensor:
        """[S, heads, P, Q, N] bool; a row hidden altogether is opened.

        missed [S, P, Q, N]; noise in [0, 1), broadcastable to the result.
        """
        excess = missed.unsqueeze(1) - noise  # blocked where it is above 0
        is_hidden = excess.amin(-1, keepdim=True) > 0
        return excess > torch.where(is_hidden, math.inf, 0.0)


class MaskDecoder(nn.Module):
    """Image features and text -> mask, edge and existence logits for every slice and prompt.

    grids: in-plane sides of the three memories (strides 32, 16, 8).
    """

    def __init__(
        self,
        *,
        width: int,
        n_heads: int,
        ffn_width: int,
        n_layers: int,
        n_queries: int,
        n_edge_queries: int,
        grids: Sequence[int],
    ):
        super().__init__()
        self.n_mask_queries = n_queries - n_edge_queries
        self.grids = tuple(grids)
        self.query_features = nn.Embedding(n_queries, width)
        self.query_embeddings = nn.Embedding(n_queries, width)
        self.level_embed = nn.Embedding(N_LEVELS, width)
        for level, grid in enumerate(grids):
            self.register_buffer(f"positions_{level}", sine_positions(grid, grid, width), persistent=False)
        self.initial_self_attention = SelfAttention(width, n_heads)
        self.initial_ffn = FeedForward(width, ffn_width)
        self.layers = nn.ModuleList(DecoderLayer(width, n_heads, ffn_width) for _ in range(n_layers))
        self.decoder_norm = LayerNorm(width)
        self.mask_features = MaskFeatures(width)
        self.mask_embed = MaskEmbed(width)
        self.sampling = BoltzmannSampling()
        self.classifier_query = nn.Embedding(1, width)
        self.classifier = nn.Linear(width, 1)

    def level_of(self, layer: int) -> int:
        """The feature level that a layer attends to: strides 32, 16, 8, and again from the start."""
        return layer % N_LEVELS

    def decode(
        self, finest: Tensor, memories: Sequence[Tensor], text: Tensor, noise: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Mask embeddings [B, Q, C], one per prediction round (layers + 1), and existence logits [S, P]."""
        n_slices, n_prompts = finest.shape[0], text.shape[0]
        reduced = self.mask_features.at_grids(finest, self.grids)  # [S, C, N]
        maps = memory_maps(self, memories)

        def repeat(rows: Tensor) -> Tensor:  # [P or 1, L, C] -> [B, L, C], prompts fastest
            rows = rows.expand(n_prompts, -1, -1)
            return rows.unsqueeze(0).expand(n_slices, -1, -1, -1).flatten(0, 1)

        def blocked_for(layer: int, embeddings: Tensor) -> Tensor:
            per_slice = embeddings.reshape(n_slices, -1, embeddings.shape[-1])  # [S, P * Q, C]
            logits = (per_slice @ reduced[self.level_of(layer)]).unflatten(1, (n_prompts, -1))  # [S, P, Q, N]
            _, blocked = self.sampling((logits, layer + 1), noise[layer])  # colder with every layer
            return blocked

        text = repeat(text)
        embeddings = torch.cat([repeat(self.query_embeddings.weight[None]), text], dim=1)  # [B, Q + T, C]
        queries = repeat(self.query_features.weight[None])
        n_queries = queries.shape[1]
        tokens = self.initial_self_attention(torch.cat([queries, text], dim=1), embeddings)
        queries, text = self.initial_ffn(tokens[:, :n_queries]), tokens[:, n_queries:]
        existence = repeat(self.classifier_query.weight[None])
        rounds = [self.mask_embed(self.decoder_norm(queries))]
        for i, layer in enumerate(self.layers):
            level = self.level_of(i)
            queries, text, existence = layer(
                queries, text, existence, embeddings, maps[level], blocked_for(i, rounds[-1])
            )
            rounds.append(self.mask_embed(self.decoder_norm(queries)))
        return rounds, self.classifier(existence).reshape(n_slices, n_prompts)

    def mask_and_edge_logits(self, finest: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [B, Q, C] -> mean mask and mean edge logits, [S, P, H, W] each; averaging first is exact."""
        both = embeddings.split([self.n_mask_queries, embeddings.shape[1] - self.n_mask_queries], dim=1)
        means = torch.cat([e.mean(1).unflatten(0, (finest.shape[0], -1)) for e in both], dim=1)  # [S, 2 * P, C]
        logits, n_prompts = self.mask_features.logits(means, finest), embeddings.shape[0] // finest.shape[0]
        return logits[:, :n_prompts], logits[:, n_prompts:]

    def forward(
        self, finest: Tensor, memories: Sequence[Tensor], text_features: Tensor, noise: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """finest [S, C, H, W], memories [S, C, grid, grid] x 3, text_features [P, T, C] padded with zero rows.

        noise: one array per layer, broadcastable to [S, heads, P, Q, N]. Returns mask and edge logits [S, P, H, W] and
        existence logits [S, P].
        """
        rounds, existence = self.decode(finest, memories, text_features, noise)
        return *self.mask_and_edge_logits(finest, rounds[-1]), existence
