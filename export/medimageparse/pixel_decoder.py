"""Pixel decoder: a transformer encoder on the coarsest features, then a feature pyramid, spec section 3."""

import torch.nn.functional as F
from torch import Tensor, nn

from medimageparse.layers import Attention, GroupNorm, LayerNorm, sine_positions

N_GROUPS = 32


class ConvNorm(nn.Module):
    """Convolution without bias and group norm."""

    def __init__(self, in_channels: int, width: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, kernel, padding=kernel // 2, bias=False)
        self.norm = GroupNorm(N_GROUPS, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class EncoderLayer(nn.Module):
    """Post-norm transformer layer; positions are added to queries and keys, not to values."""

    def __init__(self, width: int, n_heads: int, ffn_width: int):
        super().__init__()
        self.self_attn = Attention(width, n_heads)
        self.linear1 = nn.Linear(width, ffn_width)
        self.linear2 = nn.Linear(ffn_width, width)
        self.norm1 = LayerNorm(width)
        self.norm2 = LayerNorm(width)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        at = tokens + positions
        tokens = self.norm1(tokens + self.self_attn(at, at, tokens))
        return self.norm2(tokens + self.linear2(F.relu(self.linear1(tokens))))


class PixelDecoder(nn.Module):
    """Backbone features at strides 4, 8, 16, 32 -> features at stride 4 and memories at strides 32, 16, 8.

    in_widths: channels of the four backbone features, finest first. All outputs have `width` channels. The published
    pixel decoder ends with one more convolution: mask_features.py.
    """

    def __init__(self, in_widths: list[int], width: int, *, n_heads: int, ffn_width: int, n_layers: int, grid: int):
        super().__init__()
        self.input_proj = nn.Conv2d(in_widths[3], width, 1)
        self.register_buffer("positions", sine_positions(grid, grid, width), persistent=False)
        self.encoder = nn.ModuleList(EncoderLayer(width, n_heads, ffn_width) for _ in range(n_layers))
        # levels 1 to 4 are strides 4, 8, 16 and 32, counted as published
        self.laterals = nn.ModuleDict({str(i + 1): ConvNorm(w, width, 1) for i, w in enumerate(in_widths[:3])})
        self.outputs = nn.ModuleDict({str(i + 1): ConvNorm(width, width, 3) for i in range(4)})

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        coarsest = self.input_proj(features[3])
        tokens = coarsest.flatten(2).transpose(1, 2)  # [B, H * W, C]
        positions = self.positions.to(tokens.dtype)
        for layer in self.encoder:
            tokens = layer(tokens, positions)
        y = F.relu(self.outputs["4"](tokens.transpose(1, 2).unflatten(2, coarsest.shape[2:])))
        pyramid = [y]
        for level, feature in (("3", features[2]), ("2", features[1]), ("1", features[0])):
            lateral = self.laterals[level](feature)
            y = F.relu(self.outputs[level](lateral + F.interpolate(y, size=lateral.shape[2:], mode="nearest")))
            pyramid.append(y)
        *memories, finest = pyramid
        return finest, *memories
