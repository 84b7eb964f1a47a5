"""Files in the format of v2_tiny.npz with our own results."""

import json
from pathlib import Path

import numpy as np
import torch
from medimageparse.checkpoint import published_state
from medimageparse.networks import build_random
from medimageparse.served_tensors import grids
from medimageparse.variants import Variant
from parity import networks_3d
from parity.running import in_torch

# nothing a multiple of anything else: image side, widths, layers, queries; fewer than ten tokens on the coarsest grid
ODD = Variant(
    name="ODD",
    image_size=70,
    backbone_width=12,
    backbone_depths=(1, 2, 1, 1),
    width=64,
    n_heads=2,
    ffn_width=40,
    n_encoder_layers=1,
    n_decoder_layers=2,
    text_width=24,
    text_heads=3,
    text_layers=2,
    n_queries=7,
    n_edge_queries=3,
    vocabulary_size=100,
    context_length=20,
)


def record(path: Path, variant: Variant, n_slices: int, n_prompts: int) -> Path:
    """A file whose slices lie along the second axis."""
    random = np.random.default_rng(0)
    modules = build_random(variant, 0)
    size, n_tokens = variant.image_size, 6
    raw = random.integers(0, 256, (size, n_slices, size - 29), dtype=np.uint8)
    ids = np.full((n_prompts, variant.context_length), variant.vocabulary_size - 1)
    ids[:, :n_tokens] = random.integers(1, variant.vocabulary_size - 1, (n_prompts, n_tokens))
    mask = np.zeros(ids.shape, np.uint8)
    mask[:, :n_tokens] = 1
    golden = {
        "config": json.dumps(
            {
                "size": size,
                "embed": variant.backbone_width,
                "depths": variant.backbone_depths,
                "dim": variant.width,
                "heads": variant.n_heads,
                "ffn": variant.ffn_width,
                "enc_layers": variant.n_encoder_layers,
                "dec_layers": variant.n_decoder_layers,
                "t_width": variant.text_width,
                "t_heads": variant.text_heads,
                "t_layers": variant.text_layers,
                "queries": variant.n_queries,
                "edge": variant.n_edge_queries,
                "vocab": variant.vocabulary_size,
                "ctx": variant.context_length,
                "slice_batch": 2,
            }
        ),
        "raw_volume": raw,
        "axis": 1,
        "padded_size": size,
        "pad_width": [[0, 0], [0, 0], [14, 15]],
        "processed_int": np.pad(raw.swapaxes(0, 1).astype(np.int32), [(0, 0), (0, 0), (14, 15)]),
        "input_ids": ids,
        "attention_mask": mask,
        "ids": 3 + np.arange(n_prompts),
    }
    golden |= {f"sd/{name}": tensor.numpy() for name, tensor in published_state(modules, variant.model).items()}
    for layer in range(variant.n_decoder_layers):
        shape = (n_slices, n_prompts, variant.n_heads, variant.n_queries, grids(variant)[layer % 3] ** 2)
        golden[f"noise_u16_{layer}"] = random.integers(0, 65536, shape, dtype=np.uint16)
    runs = {name: in_torch(module) for name, module in modules.items()}
    outputs = networks_3d.run_windows(golden, variant, runs, window_size=n_slices)
    edges = modules["mask_decoder_3d"].merging(
        torch.from_numpy(outputs["edge_logits"]), torch.from_numpy(outputs["scores"]).logit()
    )[0]
    golden |= {
        "grounding_tokens": outputs["text_features"].swapaxes(0, 1),
        "mask_features_first_last": networks_3d.mask_features(modules, outputs)[[0, -1]],
        "pred_gmasks": outputs["mask_logits"].swapaxes(0, 1),
        "edge_masks": outputs["edge_logits"].swapaxes(0, 1),
        "object_existence": torch.from_numpy(outputs["scores"]).logit().T.numpy(),
        "labels": networks_3d.to_volume(outputs["label_slices"], golden),
        "edge_labels": networks_3d.to_volume(edges.numpy(), golden),
    }
    np.savez(path, **golden)
    return path
