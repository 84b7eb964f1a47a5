"""The three networks of medimageparse_3d as they are served; served_tensors.py has their tensors' names and shapes."""

from collections.abc import Sequence

import torch
from medimageparse_contract.options import MAX_DRAWS
from torch import Tensor, nn

from medimageparse.mask_decoder import N_LEVELS, MaskDecoder
from medimageparse.merging import Merging
from medimageparse.served_tensors import grids, mask_side
from medimageparse.towers import image_tower, text_tower
from medimageparse.variants import Variant

PIXEL_MEAN = 114.495
PIXEL_STD = 57.63
NOISE_SEED = 0


class ImageEncoder(nn.Module):
    """S slices with one neighbour on each side -> features of the S slices.

    window [K, S + 2, H, W] uint8 holds their whole numbers by digits, and digit_values [K] says what each digit counts:
    grey values of 0..255 have one digit, which counts 1. The three channels of a slice are itself, the slice before and
    the slice after (spec section 1.5). Returns features at stride 4, [S, C, H/4, W/4], and the memories at strides 32,
    16 and 8.
    """

    def __init__(self, variant: Variant):
        super().__init__()
        self.backbone, self.pixel_decoder = image_tower(variant)
        self.register_buffer("pixel_mean", torch.full((1, 3, 1, 1), PIXEL_MEAN))
        self.register_buffer("pixel_std", torch.full((1, 3, 1, 1), PIXEL_STD))

    def encode(self, slices: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """slices [S, 3, H, W] of 0..255, channels in the order own, before, after."""
        slices = (slices - self.pixel_mean.mean()) / self.pixel_std.mean()
        slices = slices.to(self.backbone.patch_embed.proj.weight.dtype)
        return tuple(f.float() for f in self.pixel_decoder(self.backbone(slices)))

    @staticmethod
    def from_digits(window: Tensor, digit_values: Tensor) -> Tensor:
        """-> [S + 2, H, W] float32, without rounding; a product of matrices, as it wants a value for each digit."""
        return (digit_values @ window.float().flatten(1)).view(window.shape[1:])

    def forward(self, window: Tensor, digit_values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        slices = self.from_digits(window, digit_values)
        return self.encode(torch.stack([slices[1:-1], slices[:-2], slices[2:]], dim=1))


class TextFeatures(nn.Module):
    """input_ids, attention_mask [P, T] int64 -> text_features [P, T, C] float32, rows of padding zero."""

    def __init__(self, variant: Variant):
        super().__init__()
        self.text_encoder = text_tower(variant)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        features = self.text_encoder(input_ids).float()
        return torch.where(attention_mask.unsqueeze(-1) != 0, features, torch.zeros_like(features))


class PromptedMasks(nn.Module):
    """Features of S slices and P prompts -> label_slices, scores, mask_logits, edge_logits, lost_to, all in the graph.

    The noise is a constant: MAX_DRAWS fields [heads, MAX_DRAWS, Q, N] per layer, of which `noise_fields` chooses one
    for each prompt. A field is the same for every slice and prompt, so that a result depends neither on the batch nor
    on the day. Parity checks give their own noise per slice and prompt instead.
    """

    def __init__(self, variant: Variant):
        super().__init__()
        self.mask_decoder = MaskDecoder(
            width=variant.width,
            n_heads=variant.n_heads,
            ffn_width=variant.ffn_width,
            n_layers=variant.n_decoder_layers,
            n_queries=variant.n_queries,
            n_edge_queries=variant.n_edge_queries,
            grids=grids(variant),
        )
        self.merging = Merging(mask_side(variant), variant.image_size)
        fields = [torch.Generator().manual_seed(NOISE_SEED + draw) for draw in range(MAX_DRAWS)]
        for layer in range(variant.n_decoder_layers):
            shape = (variant.n_heads, 1, variant.n_queries, grids(variant)[layer % N_LEVELS] ** 2)
            noise = torch.cat([torch.rand(shape, generator=field) for field in fields], dim=1)
            self.register_buffer(f"noise_{layer}", noise, persistent=False)

    def noise_of(self, noise_fields: Tensor) -> list[Tensor]:
        """noise_fields int64 [P] of 0..MAX_DRAWS - 1 -> noise [heads, P, Q, N] per layer."""
        of_layers = (getattr(self, f"noise_{layer}") for layer in range(len(self.mask_decoder.layers)))
        return [fields.index_select(1, noise_fields) for fields in of_layers]

    def forward(
        self,
        features_stride4: Tensor,
        memory_stride32: Tensor,
        memory_stride16: Tensor,
        memory_stride8: Tensor,
        text_features: Tensor,
        noise_fields: Tensor,
        noise: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        dtype = self.mask_decoder.classifier.weight.dtype
        if noise is None:
            noise = self.noise_of(noise_fields)
        memories = [memory.to(dtype) for memory in (memory_stride32, memory_stride16, memory_stride8)]
        mask_logits, edge_logits, existence = self.mask_decoder(
            features_stride4.to(dtype), memories, text_features.to(dtype), noise
        )
        label_slices, scores, lost_to = self.merging(mask_logits, existence)
        return label_slices, scores, mask_logits.float(), edge_logits.float(), lost_to
