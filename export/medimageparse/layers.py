"""Layers that several networks share. Normalisation and softmax compute in float32 whatever the weights' precision."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over the last axis, computed in float32 and returned in the input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps).to(x.dtype)

    def scaled(self, x: Tensor, scale: Tensor) -> Tensor:
        """scale * norm(x), with the scale of every feature in the norm's own weights: one pass over x less."""
        weight, bias = self.weight * scale.float(), self.bias * scale.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class GroupNorm(nn.GroupNorm):
    """Group normalisation of [B, C, H, W], computed in float32 and returned in the input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps).to(x.dtype)


class Attention(nn.Module):
    """Multi-head attention with the packed input projection of the published weights.

    The projection is applied in parts, so that keys and values which do not depend on the prompt are computed once:
    `project` gives queries, keys and values, `attend` combines them.
    """

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.scale = 1 / math.sqrt(width // n_heads)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))  # rows: queries, keys, values
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, L, C] each -> [B, heads, L, C / heads] each."""
        weights = self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3)
        projected = [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]
        q, k, v = (x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for x in projected)
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, blocked: Tensor | None = None) -> Tensor:
        """Queries [B, heads, L, C / heads] over keys, values -> [B, L, C]; blocked broadcasts to [B, heads, L, N]."""
        scores = (q * self.scale) @ k.transpose(-1, -2)
        scores = scores.float()
        if blocked is not None:
            scores = scores.masked_fill(blocked, -math.inf)
        attended = scores.softmax(-1).to(v.dtype) @ v
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
        return self.attend(*self.project(query, key, value), blocked)


class FeedForward(nn.Module):
    """Post-norm two-layer perceptron with a residual: LN(x + linear2(ReLU(linear1(x))))."""

    def __init__(self, width: int, hidden_width: int):
        super().__init__()
        self.linear1 = nn.Linear(width, hidden_width)
        self.linear2 = nn.Linear(hidden_width, width)
        self.norm = LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.linear2(F.relu(self.linear1(x))))


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
