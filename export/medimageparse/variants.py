"""All sizes of the networks of both public models: the published ones, the demos and tiny ones for tests."""

from dataclasses import dataclass, replace

# Limits that are built into the graphs, the same for every variant.
MAX_PROMPTS = 64  # 3D: non-maximum suppression is unrolled this often, exact for any chain of up to 64 prompts
MAX_GROUPS = 16  # 2D: groups of prompts decoded apart, each with a pass of the mask decoder
CONTEXT_LENGTH = 77  # tokens of a CLIP prompt, begin and end mark included
VOCABULARY_SIZE = 49408  # CLIP's byte pair encoding


@dataclass(frozen=True)
class Variant:
    """Sizes of one set of networks; the names of the specifications are given beside ours."""

    name: str
    image_size: int  # side of a slice or image as the network sees it
    backbone_width: int  # `embed`: channels after the stem, doubled at each of the three later stages
    backbone_depths: tuple[int, int, int, int]  # blocks per stage
    width: int  # C: channels of the pixel decoder and the mask decoder
    n_heads: int
    ffn_width: int
    n_encoder_layers: int  # transformer layers of the pixel decoder
    n_decoder_layers: int  # layers of the mask decoder, cycling through the three feature levels
    text_width: int
    text_heads: int
    text_layers: int
    n_queries: int = 16  # Q, edge queries included
    n_edge_queries: int = 4  # the last ones; 2D has none
    vocabulary_size: int = VOCABULARY_SIZE
    context_length: int = CONTEXT_LENGTH
    model: str = "medimageparse_3d"  # the public model that the networks serve
    notice: str = "for research only, not for clinical use"  # what every report says of the networks


PUBLISHED = Variant(
    name="PUBLISHED",
    image_size=512,
    backbone_width=192,
    backbone_depths=(2, 2, 18, 2),
    width=512,
    n_heads=8,
    ffn_width=2048,
    n_encoder_layers=6,
    n_decoder_layers=9,
    text_width=512,
    text_heads=8,
    text_layers=12,
)

DEMO = Variant(
    name="DEMO",
    image_size=192,
    backbone_width=24,
    backbone_depths=(1, 1, 2, 1),
    width=96,
    n_heads=4,
    ffn_width=192,
    n_encoder_layers=2,
    n_decoder_layers=3,
    text_width=32,
    text_heads=4,
    text_layers=2,
    notice="demo networks trained on phantoms: they show the service at work and know no anatomy",
)

TINY = Variant(
    name="TINY",
    image_size=64,
    backbone_width=16,
    backbone_depths=(1, 1, 1, 1),
    width=32,
    n_heads=4,
    ffn_width=64,
    n_encoder_layers=1,
    n_decoder_layers=4,
    text_width=32,
    text_heads=4,
    text_layers=1,
)

PUBLISHED_2D = replace(
    PUBLISHED, name="PUBLISHED_2D", model="medimageparse", image_size=1024, n_queries=101, n_edge_queries=0
)

DEMO_2D = replace(DEMO, name="DEMO_2D", model="medimageparse", n_queries=16, n_edge_queries=0)

TINY_2D = replace(TINY, name="TINY_2D", model="medimageparse", n_queries=12, n_edge_queries=0)

VARIANTS = {variant.name: variant for variant in (PUBLISHED, DEMO, TINY, PUBLISHED_2D, DEMO_2D, TINY_2D)}
MODELS = tuple(dict.fromkeys(variant.model for variant in VARIANTS.values()))  # the public models
