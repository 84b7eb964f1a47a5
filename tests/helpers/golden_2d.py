"""Files in the format of v1_tiny.npz with our own results."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from medimageparse.checkpoint import published_state
from medimageparse.class_embeddings import class_token_ids, set_class_embeddings
from medimageparse.networks import build_random
from medimageparse.seem_decoder import unit
from medimageparse.variants import VOCABULARY_SIZE, Variant
from medimageparse_serving.prompts.clip_tokenizer import tokenize
from PIL import Image
from torch import nn

# nothing a multiple of anything else: image side, widths, layers, heads, queries; nine tokens on the coarsest grid
ODD = Variant(
    name="ODD",
    model="medimageparse",
    image_size=70,
    backbone_width=12,
    backbone_depths=(1, 2, 1, 1),
    width=96,
    n_heads=3,
    ffn_width=40,
    n_encoder_layers=2,
    n_decoder_layers=5,
    text_width=24,
    text_heads=4,
    text_layers=3,
    n_queries=7,
    n_edge_queries=0,
    context_length=30,
)
CASES = {
    "several": ["left ventricle", "COVID-19 infection in chest X-ray", "liver", "liver"],
    "one": ["optic disc in retinal fundus"],
}
TOKEN_EMBEDDING = "sd/sem_seg_head.predictor.lang_encoder.lang_encoder.token_embedding.weight"


def record(path: Path, variant: Variant, height: int, width: int) -> Path:
    """A file of an image; weights are exact in float16 and stored so."""
    modules = build_random(variant, 0)
    for parameter in nn.ModuleDict(modules).parameters():
        parameter.data = parameter.data.half().float()
    set_class_embeddings(modules)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    side = (variant.image_size, variant.image_size)
    resized = np.array(Image.fromarray(image).resize(side, Image.Resampling.BICUBIC))
    class_ids, class_mask = class_token_ids()
    golden = {f"sd/{name}": tensor.numpy() for name, tensor in published_state(modules, variant.model).items()}
    golden = {name: array.astype(np.float16) for name, array in golden.items()} | {
        "image": image,
        "image_resized": resized,
        "class_text_embeddings": modules["mask_decoder"].class_embeddings.numpy(),
        "class_template_ids": np.where(class_mask, class_ids, -1),
        "info_json": np.frombuffer(json.dumps({"cases": CASES, "config": config_of(variant)}).encode(), np.uint8),
    }
    with torch.no_grad():
        features = modules["image_encoder"](torch.from_numpy(resized[None]))
        names = ("multi_scale_0", "multi_scale_1", "multi_scale_2")
        golden |= {f"one/{name}": tensor.numpy() for name, tensor in zip(names, features[1:], strict=True)}
        golden["one/mask_features"] = modules["mask_decoder"].mask_decoder.mask_features(features[0]).numpy()
        for case, prompts in CASES.items():
            found = results_of(modules, features, *padded_tokens(prompts, variant.context_length), (height, width))
            golden |= {f"{case}/{name}": array for name, array in found.items()}
    used = [class_ids.ravel(), *(golden[f"{case}/input_ids"].ravel() for case in CASES)]
    golden["token_rows"] = np.unique(np.concatenate(used))
    golden[TOKEN_EMBEDDING] = golden[TOKEN_EMBEDDING][golden["token_rows"]]
    np.savez(path, **golden)
    return path


def config_of(variant: Variant) -> dict:
    """What the shapes of the weights do not show."""
    text = {"HEADS": variant.text_heads, "CONTEXT_LENGTH": variant.context_length}
    model = {"DECODER": {"NHEADS": variant.n_heads}, "TEXT": text}
    return {"image_size": variant.image_size, "vocab": variant.vocabulary_size, "MODEL": model}


def padded_tokens(prompts: list[str], length: int) -> tuple[np.ndarray, np.ndarray]:
    """As the original makes them: all of the context length."""
    ids, mask, _ = tokenize(prompts)
    padding = [(0, 0), (0, length - ids.shape[1])]
    return np.pad(ids, padding, constant_values=VOCABULARY_SIZE - 1), np.pad(mask, padding)


def results_of(
    modules: dict[str, nn.Module], features: tuple, ids: np.ndarray, mask: np.ndarray, shape: tuple[int, int]
) -> dict[str, np.ndarray]:
    """What the original computes and we do not serve: all queries, at the full context length."""
    finest, *memories = features
    matched_masks = modules["mask_decoder"]
    decoder = matched_masks.mask_decoder
    token_emb = modules["text_encoder"].text_encoder(torch.from_numpy(ids))
    is_token = torch.from_numpy(mask != 0)
    class_emb = token_emb[torch.arange(len(ids)), is_token.sum(1) - 1]
    states = decoder(finest, memories, token_emb[is_token][None], is_token[is_token][None])
    captions, embeddings = decoder.captions(states[-1]), decoder.mask_embeddings(states[-1])
    scale = matched_masks.logit_scale.exp()
    similarity = scale.clamp(max=100) * unit(captions[0]) @ unit(class_emb).T
    matched = similarity.argmax(0)
    masks = torch.einsum("bqc,bchw->bqhw", embeddings, decoder.mask_features(finest))
    logits = scale * unit(captions) @ matched_masks.class_embeddings.T
    probabilities = F.interpolate(masks[:, matched], size=shape, mode="bilinear")[0].sigmoid()
    found = {
        "token_emb": token_emb[:, : mask.sum(1).max()],
        "class_emb": class_emb,
        "query_states": torch.cat(states),
        "pred_masks": masks,
        "pred_logits": logits,
        "similarity": similarity,
        "matched_id": matched,
        "pred_class": logits[0, matched].argmax(1),
        "prob": probabilities,
    }
    return {"input_ids": ids, "attention_mask": mask} | {name: tensor.numpy() for name, tensor in found.items()}
