"""The parts that the networks of both public models have in common, in the sizes of a variant."""

from medimageparse.focalnet import FocalNet
from medimageparse.pixel_decoder import PixelDecoder
from medimageparse.served_tensors import grids
from medimageparse.text_encoder import TextEncoder
from medimageparse.variants import Variant


def image_tower(variant: Variant) -> tuple[FocalNet, PixelDecoder]:
    """Backbone and pixel decoder."""
    backbone = FocalNet(variant.backbone_width, variant.backbone_depths)
    widths = [variant.backbone_width * 2**stage for stage in range(4)]
    pixel_decoder = PixelDecoder(
        widths,
        variant.width,
        n_heads=variant.n_heads,
        ffn_width=variant.ffn_width,
        n_layers=variant.n_encoder_layers,
        grid=grids(variant)[0],
    )
    return backbone, pixel_decoder


def text_tower(variant: Variant) -> TextEncoder:
    """Text encoder."""
    return TextEncoder(
        vocabulary_size=variant.vocabulary_size,
        context_length=variant.context_length,
        width=variant.text_width,
        n_heads=variant.text_heads,
        n_layers=variant.text_layers,
        out_width=variant.width,
    )
