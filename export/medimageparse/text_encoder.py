"""CLIP text tower (Radford et al. 2021) with the projection into the mask decoder's width, spec section 4."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medimageparse.layers import Attention, Float32LayerNorm

LAYER_NORM_EPS = 1e-12  # far below what float16 can hold: these norms stay in float32


class TextMlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        gate = torch.sigmoid(1.702 * x.float()).to(x.dtype)  # QuickGELU
        return self.c_proj(x * gate)


class TextBlock(nn.Module):
    """Pre-norm transformer block with a causal mask and no padding mask."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.attn = Attention(width, n_heads)
        self.ln_1 = Float32LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = TextMlp(width)
        self.ln_2 = Float32LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor, later: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, blocked=later)
        return x + self.mlp(self.ln_2(x))


class TextEncoder(nn.Module):
    """Token ids [P, T] -> projected tokens [P, T, C]. Attention is causal: a longer T leaves earlier rows alone."""

    def __init__(
        self, *, vocabulary_size: int, context_length: int, width: int, n_heads: int, n_layers: int, out_width: int
    ):
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.resblocks = nn.ModuleList(TextBlock(width, n_heads) for _ in range(n_layers))
        self.ln_final = Float32LayerNorm(width, eps=LAYER_NORM_EPS)
        self.lang_proj = nn.Parameter(torch.empty(width, out_width))
        later = torch.ones(context_length, context_length, dtype=torch.bool).triu(1)
        self.register_buffer("later", later, persistent=False)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.lang_proj, std=width**-0.5)

    def forward(self, input_ids: Tensor) -> Tensor:
        n_tokens = input_ids.shape[1]
        x = F.embedding(input_ids, self.token_embedding.weight) + self.positional_embedding[:n_tokens]
        later = self.later[:n_tokens, :n_tokens]
        for block in self.resblocks:
            x = block(x, later)
        return self.ln_final(x) @ self.lang_proj
