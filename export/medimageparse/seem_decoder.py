"""SEEM mask decoder in grounding mode (Zou et al. 2023, Segment Everything Everywhere All at Once), 2D spec section 5.

Object queries and the tokens of all prompts of a group run through the layers as one sequence, so a prompt's mask
depends on the other prompts of its group. Whatever depends on the image alone is computed once: keys and values of the
cross-attention and the mask features reduced to each level's grid. Masks are made of the matched queries only.

Dimensions: I images, one or as many as groups; G groups, N prompts of each, P = G * N, Q object queries,
L = N * T tokens of a group, C channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medimageparse.decisions import Decision
from medimageparse.layers import FeedForward, LayerNorm, sine_positions
from medimageparse.mask_decoder import N_LEVELS, CrossAttention, MaskEmbed, SelfAttention, memory_maps
from medimageparse.mask_features import MaskFeatures

NORM_EPS = 1e-7


def unit(x: Tensor) -> Tensor:
    """Vectors of length one along the last axis, in float32."""
    x = x.float()
    return x / (x.norm(dim=-1, keepdim=True) + NORM_EPS)


class SeemLayer(nn.Module):
    def __init__(self, width: int, n_heads: int, ffn_width: int):
        super().__init__()
        self.cross_attention = CrossAttention(width, n_heads)
        self.self_attention = SelfAttention(width, n_heads)
        self.ffn = FeedForward(width, ffn_width)


class AttentionMask(Decision):
    """Which grid tokens each query may not see: those outside its mask."""

    def evidence(self, mask_logits: Tensor) -> Tensor:
        """The mask's probabilities, [G, Q, N] float32 like the logits."""
        return torch.sigmoid(mask_logits.float())

    def decide(self, probabilities: Tensor) -> Tensor:
        """[G, Q, N] bool; a row hidden altogether is opened."""
        is_hidden = probabilities.amax(-1, keepdim=True) < 0.5
        return probabilities < torch.where(is_hidden, 0.0, 0.5)


class SeemDecoder(nn.Module):
    """Features of images and the tokens of groups of prompts -> the states of the object queries.

    grids: sides of the three memories (strides 32, 16, 8).
    """

    def __init__(
        self, *, width: int, n_heads: int, ffn_width: int, n_layers: int, n_queries: int, grids: Sequence[int]
    ):
        super().__init__()
        self.grids = tuple(grids)
        self.query_features = nn.Embedding(n_queries, width)
        self.query_embeddings = nn.Embedding(n_queries, width)
        self.level_embed = nn.Embedding(N_LEVELS, width)
        for level, grid in enumerate(grids):
            self.register_buffer(f"positions_{level}", sine_positions(grid, grid, width), persistent=False)
        self.layers = nn.ModuleList(SeemLayer(width, n_heads, ffn_width) for _ in range(n_layers))
        self.decoder_norm = LayerNorm(width)
        self.mask_features = MaskFeatures(width)
        self.mask_embed = MaskEmbed(width)
        self.attention_mask = AttentionMask()
        self.class_embed = nn.Parameter(torch.empty(width, width))
        nn.init.normal_(self.class_embed, std=width**-0.5)

    def mask_embeddings(self, queries: Tensor) -> Tensor:
        """[G, Q, C] -> [G, Q, C]: a mask logit is the product with a pixel's mask features."""
        return self.mask_embed(self.decoder_norm(queries))

    def captions(self, queries: Tensor) -> Tensor:
        """[G, Q, C] -> [G, Q, C], compared with the vectors of prompts and of classes."""
        return self.decoder_norm(queries) @ self.class_embed

    def forward(self, finest: Tensor, memories: Sequence[Tensor], tokens: Tensor, is_token: Tensor) -> list[Tensor]:
        """finest [I, C, H, W] at stride 4, memories [I, C, grid, grid] x 3, tokens [G, L, C], is_token [G, L] bool.

        Returns the queries before each layer and after the last: [I, Q, C] before the first, then [G, Q, C].
        """
        reduced = self.mask_features.at_grids(finest, self.grids)  # [I, C, N]
        maps = memory_maps(self, memories)
        n_groups, n_queries = tokens.shape[0], self.query_features.num_embeddings
        at_queries = self.query_embeddings.weight[None]
        embeddings = torch.cat([at_queries.expand(n_groups, -1, -1), tokens], dim=1)
        is_query = torch.ones_like(is_token[:, :1]).expand(-1, n_queries)
        padding = ~torch.cat([is_query, is_token], dim=1)[:, None, None]  # [G, 1, 1, Q + L]
        states = [self.query_features.weight[None].expand(finest.shape[0], -1, -1)]
        for i, layer in enumerate(self.layers):
            level = i % N_LEVELS
            _, outside = self.attention_mask((self.mask_embeddings(states[-1]) @ reduced[level],))
            blocked = outside.unflatten(0, (reduced[level].shape[0], -1)).unsqueeze(1)  # [I, 1, G / I, Q, tokens]
            queries = layer.cross_attention(states[-1], at_queries, maps[level], blocked)
            sequence = torch.cat([queries.expand(n_groups, -1, -1), tokens], dim=1)
            sequence = layer.ffn(layer.self_attention(sequence, embeddings, padding))
            tokens = sequence[:, n_queries:]
            states.append(sequence[:, :n_queries])
        return states
