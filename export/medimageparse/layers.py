"""Layers that several networks share.

Norms and the softmax of attention take and give the weights' precision and compute in float32 inside, as runtimes do:
casts around them would move three times the bytes. `make export` and `make engines` compare what comes out.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def apply_linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[..., C] -> [..., C'] with the bias in the product's own node, which takes matrices only."""
    return F.linear(rows.flatten(0, -2), weight, bias).unflatten(0, rows.shape[:-1])


def add_up(terms: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape, one node in a graph."""
    if torch.onnx.is_in_onnx_export():
        return torch.onnx.ops.symbolic("Sum", terms, dtype=terms[0].dtype, shape=terms[0].shape)
    first, *others = terms
    return sum(others, start=first)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over the last axis, in the input's dtype; statistics are in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def scaled(self, x: Tensor, scale: Tensor) -> Tensor:
        """scale * norm(x), with the scale of every feature in the norm's own weights: one pass over x less."""
        return F.layer_norm(x, self.normalized_shape, self.weight * scale, self.bias * scale, self.eps)


class Float32LayerNorm(nn.LayerNorm):
    """Layer normalisation over the last axis with float32 on all sides, returned in the input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps).to(x.dtype)


class GroupNorm(nn.GroupNorm):
    """Group normalisation of [B, C, H, W], in the input's dtype; statistics are in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class Attention(nn.Module):
    """Multi-head attention with the packed input projection of the published weights.

    query [B, L, C], key and value [B, N, C] -> [B, L, C]; blocked, bool, broadcasts to [B, heads, L, N].
    """

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.scale = 1 / math.sqrt(width // n_heads)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))  # rows: queries, keys, values
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
        inputs, weights, biases = (query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        projected = (apply_linear(*each) for each in zip(inputs, weights, biases, strict=True))
        q, k, v = (rows.unflatten(-1, (self.n_heads, -1)) for rows in projected)  # [B, L or N, heads, C / heads]
        attended = self.attend(q.transpose(1, 2), k.permute(0, 2, 3, 1), v.transpose(1, 2), blocked)
        return apply_linear(attended, self.out_proj.weight, self.out_proj.bias)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, blocked: Tensor | None) -> Tensor:
        """q [B, heads, L, C / heads], k [B, heads, C / heads, N], v [B, heads, N, C / heads] -> [B, L, C]."""
        scores = (q * self.scale) @ k
        if blocked is not None:
            scores = scores.masked_fill(blocked, -math.inf)
        attended = scores.softmax(-1) @ v
        return attended.transpose(1, 2).flatten(2)


class FeatureMap(NamedTuple):
    """Features [B, C, N] as convolutions leave them, their positions [C, N], and what all positions share, [C]."""

    features: Tensor
    positions: Tensor
    shared: Tensor


class MapAttention(Attention):
    """Attention of few queries [B, L, C] to all features of a map, and to their positions in the keys -> [B, L, C].

    What all positions share is never added to the map. In keys, this and the bias add the same to all scores of a
    query, which softmax does not see. In values it passes unchanged, since the weights of a query sum to one.
    """

    def forward(self, query: Tensor, at: FeatureMap, blocked: Tensor) -> Tensor:  # type: ignore[override]
        (for_q, for_k, for_v), (bias_q, _, bias_v) = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q = apply_linear(query, for_q, bias_q).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        k, v = for_k @ (at.features + at.positions), for_v @ at.features  # [B, C, N]
        k, v = (x.unflatten(1, (self.n_heads, -1)) for x in (k, v))
        attended = self.attend(q, k, v.transpose(2, 3), blocked) + F.linear(at.shared, for_v, bias_v)
        return apply_linear(attended, self.out_proj.weight, self.out_proj.bias)


class FeedForward(nn.Module):
    """Post-norm two-layer perceptron with a residual: LN(x + linear2(ReLU(linear1(x))))."""

    def __init__(self, width: int, hidden_width: int):
        super().__init__()
        self.linear1 = nn.Linear(width, hidden_width)
        self.linear2 = nn.Linear(hidden_width, width)
        self.norm = LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(apply_linear(x, self.linear1.weight, self.linear1.bias))
        return self.norm(x + apply_linear(hidden, self.linear2.weight, self.linear2.bias))


def sine_positions(height: int, width: int, channels: int) -> Tensor:
    """Sine encoding of a grid, [H * W, C] float32: half of the channels encodes y, then half x (spec section 3)."""
    features = torch.arange(channels // 2)
    frequencies = 10000.0 ** (2 * (features // 2) / (channels // 2))

    def encode(n: int) -> Tensor:  # [n, C / 2], even features sine, odd cosine
        angles = (torch.arange(1, n + 1) / (n + 1e-6) * (2 * math.pi))[:, None] / frequencies
        return torch.where(features % 2 == 0, angles.sin(), angles.cos())

    y = encode(height)[:, None].expand(-1, width, -1)
    x = encode(width)[None].expand(height, -1, -1)
    return torch.cat([y, x], dim=-1).flatten(0, 1)
