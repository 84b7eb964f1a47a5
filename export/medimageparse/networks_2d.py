"""The three networks of medimageparse as they are served; served_tensors.py has their tensors' names and shapes."""

import math

import torch
from medimageparse_contract.categories import CLASSES
from torch import Tensor, nn

from medimageparse.decisions import Decision
from medimageparse.seem_decoder import SeemDecoder, unit
from medimageparse.served_tensors import grids
from medimageparse.towers import image_tower, text_tower
from medimageparse.variants import Variant

PIXEL_MEAN = (123.675, 116.280, 103.530)  # red, green, blue
PIXEL_STD = (58.395, 57.120, 57.375)
INITIAL_LOGIT_SCALE = math.log(1 / 0.07)


class ImageFeatures(nn.Module):
    """pixels [1, H, W, 3] uint8, red, green, blue -> features at strides 4, 32, 16, 8, [1, C, H/stride, W/stride]."""

    def __init__(self, variant: Variant):
        super().__init__()
        self.backbone, self.pixel_decoder = image_tower(variant)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD), persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        normalized = ((pixels.float() - self.pixel_mean) / self.pixel_std).permute(0, 3, 1, 2)
        normalized = normalized.to(self.backbone.patch_embed.proj.weight.dtype)
        return tuple(f.float() for f in self.pixel_decoder(self.backbone(normalized)))


class PromptFeatures(nn.Module):
    """input_ids, attention_mask [P, T] int64 -> token_features [P, T, C], rows of padding zero, prompt_features [P, C].

    A prompt's own features are those of its first end mark, which is the largest id of the vocabulary and also padding.
    """

    def __init__(self, variant: Variant):
        super().__init__()
        self.text_encoder = text_tower(variant)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        features = self.text_encoder(input_ids).float()
        n_tokens = input_ids.shape[1]
        # no two of these are equal, so that every runtime takes the same
        earlier_is_more = input_ids * n_tokens - torch.arange(n_tokens, device=input_ids.device)
        end = earlier_is_more.argmax(1)[:, None, None].expand(-1, 1, features.shape[-1])
        prompt_features = features.gather(1, end).squeeze(1)
        return torch.where(attention_mask.unsqueeze(-1) != 0, features, torch.zeros_like(features)), prompt_features


class Matching(Decision):
    """The object query whose caption is most like a prompt."""

    def evidence(self, captions: Tensor, prompt_features: Tensor) -> Tensor:
        """captions [G, Q, C], prompt_features [G, N, C] -> cosines [G, Q, N] float32.

        The original multiplies by a temperature, which does not change the best.
        """
        return unit(captions) @ unit(prompt_features).transpose(1, 2)

    def decide(self, cosines: Tensor) -> Tensor:
        """The best query of each prompt, [G, N] int64."""
        return cosines.argmax(1)


class MatchedMasks(nn.Module):
    """Features of an image and of P prompts -> mask, similarity and category of the query matched to each prompt.

    prompt_groups [G, N] int64: which prompts are decoded together; each prompt stands in one group. class_embeddings
    are a constant of the checkpoint, see class_embeddings.py.
    """

    def __init__(self, variant: Variant):
        super().__init__()
        self.mask_decoder = SeemDecoder(
            width=variant.width,
            n_heads=variant.n_heads,
            ffn_width=variant.ffn_width,
            n_layers=variant.n_decoder_layers,
            n_queries=variant.n_queries,
            grids=grids(variant),
        )
        self.matching = Matching()
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))
        self.register_buffer("class_embeddings", torch.zeros(len(CLASSES), variant.width), persistent=False)

    def forward(
        self,
        features_stride4: Tensor,
        memory_stride32: Tensor,
        memory_stride16: Tensor,
        memory_stride8: Tensor,
        token_features: Tensor,
        attention_mask: Tensor,
        prompt_features: Tensor,
        prompt_groups: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        decoder = self.mask_decoder
        dtype = decoder.class_embed.dtype
        finest = features_stride4.to(dtype)
        memories = [memory.to(dtype) for memory in (memory_stride32, memory_stride16, memory_stride8)]
        tokens = token_features[prompt_groups].flatten(1, 2).to(dtype)  # [G, N * T, C]
        is_token = attention_mask[prompt_groups].flatten(1, 2) != 0
        queries = decoder(finest, memories, tokens, is_token)[-1]
        captions = decoder.captions(queries)
        cosines, matched = self.matching((captions, prompt_features[prompt_groups]))
        rows = matched.unsqueeze(-1).expand(-1, -1, queries.shape[-1])  # [G, N, C]
        embeddings = decoder.mask_embeddings(queries.gather(1, rows)).flatten(0, 1)  # [P, C]
        mask_logits = decoder.mask_features.logits(embeddings[None], finest).squeeze(0)
        similarities = cosines.gather(1, matched.unsqueeze(1)).flatten()
        category_logits = unit(captions.gather(1, rows)) @ self.class_embeddings.T * self.logit_scale.float().exp()
        return mask_logits.float(), similarities, matched.flatten(), category_logits.flatten(0, 1)
