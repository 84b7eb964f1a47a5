"""FocalNet backbone (Yang et al. 2022, Focal Modulation Networks), spec section 2.

Post-norm blocks with layer scale, convolutional patch embedding and the normalised modulator. Tokens stay in
channels-last layout [B, H, W, C]; only the depth-wise convolutions see [B, C, H, W].
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medimageparse.layers import LayerNorm, add_up, apply_linear

N_FOCAL_LEVELS = 4
FIRST_FOCAL_WINDOW = 3


class FocalModulation(nn.Module):
    """q * h(sum of gated contexts of growing size): [B, H, W, C] -> [B, H, W, C]."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.f = nn.Linear(width, 2 * width + N_FOCAL_LEVELS + 1)
        self.h = nn.Conv2d(width, width, 1)
        self.proj = nn.Linear(width, width)
        kernels = [FIRST_FOCAL_WINDOW + 2 * level for level in range(N_FOCAL_LEVELS)]
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, k, padding=k // 2, groups=width, bias=False), nn.GELU())
            for k in kernels
        )

    def forward(self, x: Tensor) -> Tensor:
        query, context, gates = (apply_linear(x, *part) for part in self.f_parts())
        context = context.permute(0, 3, 1, 2)  # [B, C, H, W]
        gates = gates.permute(0, 3, 1, 2) / (N_FOCAL_LEVELS + 1)  # [B, levels + 1, H, W]; the contexts are averaged
        gated = []
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            gated.append(context * gates[:, level : level + 1])
        everywhere = F.gelu(context.mean((2, 3), keepdim=True))
        gated.append(everywhere * gates[:, N_FOCAL_LEVELS:])
        modulator = add_up(gated).permute(0, 2, 3, 1)
        modulator = apply_linear(modulator, self.h.weight.flatten(1), self.h.bias)
        return apply_linear(query * modulator, self.proj.weight, self.proj.bias)

    def f_parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Weight and bias of `f` for query, context and gates: applied one by one, its result need not be cut up."""
        sizes = [self.width, self.width, N_FOCAL_LEVELS + 1]
        return zip(self.f.weight.split(sizes), self.f.bias.split(sizes), strict=True)


class Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(apply_linear(x, self.fc1.weight, self.fc1.bias))
        return apply_linear(hidden, self.fc2.weight, self.fc2.bias)


class FocalBlock(nn.Module):
    """Each branch is normalised and scaled after it ran: x + gamma * LN(branch(x))."""

    def __init__(self, width: int):
        super().__init__()
        self.modulation = FocalModulation(width)
        self.norm1 = LayerNorm(width)
        self.gamma_1 = nn.Parameter(torch.full((width,), 1e-4))
        self.mlp = Mlp(width)
        self.norm2 = LayerNorm(width)
        self.gamma_2 = nn.Parameter(torch.full((width,), 1e-4))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm1.scaled(self.modulation(x), self.gamma_1)
        return x + self.norm2.scaled(self.mlp(x), self.gamma_2)

    @torch.no_grad()
    def fold_scales(self) -> None:
        """Gammas into the weights of the norms, in place: in float16 a product is then rounded once."""
        for norm, gamma in ((self.norm1, self.gamma_1), (self.norm2, self.gamma_2)):
            norm.weight *= gamma
            norm.bias *= gamma
            gamma.fill_(1)


class PatchEmbed(nn.Module):
    """Strided convolution, padded right and bottom to a multiple of it, and norm: [B, C, H, W] -> [B, h, w, C']."""

    def __init__(self, in_channels: int, width: int, *, kernel: int, stride: int, padding: int):
        super().__init__()
        self.stride = stride
        self.proj = nn.Conv2d(in_channels, width, kernel, stride=stride, padding=padding)
        self.norm = LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        bottom, right = (-side % self.stride for side in x.shape[2:])
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Stage(nn.Module):
    def __init__(self, width: int, depth: int):
        super().__init__()
        self.blocks = nn.Sequential(*(FocalBlock(width) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class FocalNet(nn.Module):
    """Slices [B, 3, H, W] -> features at strides 4, 8, 16, 32, each [B, width * 2**stage, H / stride, W / stride]."""

    def __init__(self, width: int, depths: tuple[int, ...]):
        super().__init__()
        widths = [width * 2**stage for stage in range(len(depths))]
        self.patch_embed = PatchEmbed(3, width, kernel=7, stride=4, padding=2)
        self.stages = nn.ModuleList(Stage(w, depth) for w, depth in zip(widths, depths, strict=True))
        self.downsamples = nn.ModuleList(PatchEmbed(w, 2 * w, kernel=3, stride=2, padding=1) for w in widths[:-1])
        self.norms = nn.ModuleList(LayerNorm(w) for w in widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        tokens = self.patch_embed(x)
        features = []
        for stage, norm, downsample in zip(self.stages, self.norms, [*self.downsamples, None], strict=True):
            tokens = stage(tokens)
            features.append(norm(tokens).permute(0, 3, 1, 2))
            if downsample is not None:
                tokens = downsample(tokens.permute(0, 3, 1, 2))  # from the tokens before the norm
        return features
