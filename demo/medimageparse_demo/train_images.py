"""Trains the DEMO_2D variant on phantom images: `python -m medimageparse_demo.train_images`.

Every structure has an object query of its own from the start (the published weights found theirs by matching). Each
step decodes all prompts of an image together, as they are served: masks by cross-entropy and Dice at every decoder
layer, the match of prompt and query and the category by cross-entropy.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from medimageparse.class_embeddings import TEMPLATES
from medimageparse.networks_2d import MatchedMasks
from medimageparse.seem_decoder import unit
from medimageparse.variants import DEMO_2D
from medimageparse_contract.categories import CLASSES
from medimageparse_serving.image.image_file import pad_to_square
from medimageparse_serving.image.pixels import to_pixels
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from medimageparse_demo.image_prompts import CATEGORY_OF, sample_prompt, training_prompts
from medimageparse_demo.images import STRUCTURES, make_image
from medimageparse_demo.training import (
    FIRST_TRAINING_SEED,
    SEED,
    Tokens,
    dice_loss,
    fit,
    fresh_networks,
    mask_loss,
    run,
    shifted,
)

N_IMAGES = 800  # at hand at a time; every step one of them is drawn anew
N_STEPS = 6000
BATCH = 6  # images per step
PROMPTS_PER_IMAGE = (1, 2, 3, 4, 6)
SENTENCES_PER_CLASS = 2  # per step, of the templates that make a class's vector
LAYERS_WEIGHT, MATCH_WEIGHT, CATEGORY_WEIGHT = 0.5, 1.0, 0.5


@dataclass(frozen=True)
class TrainingImage:
    """As the network sees it: pixels uint8 [3, S, S], masks bool [n, S, S] of n structures."""

    pixels: np.ndarray
    masks: np.ndarray
    structures: tuple[str, ...]


def make_training_image(seed: int) -> TrainingImage:
    phantom = make_image(seed)
    size = DEMO_2D.image_size
    masks = [
        np.asarray(
            Image.fromarray(pad_to_square(mask.astype(np.uint8) * 255)).resize((size, size), Image.Resampling.BILINEAR)
        )
        > 127
        for mask in phantom.masks.values()
    ]
    pixels = to_pixels(pad_to_square(phantom.pixels), size)[0]
    return TrainingImage(pixels.transpose(2, 0, 1), np.stack(masks), tuple(phantom.masks))


def augmented(image: TrainingImage, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shifted in the plane, with other contrast, other colours and more noise: [3, S, S], [n, S, S]."""
    pixels, masks = shifted((image.pixels.astype(np.float32), image.masks), rng)
    pixels = pixels * rng.uniform(0.88, 1.12) * rng.uniform(0.96, 1.04, (3, 1, 1)) + rng.uniform(-12, 12)
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(0, 10)
    return np.clip(pixels, 0, 255).round(), masks


def draw_step(images: list[TrainingImage], rng: np.random.Generator) -> tuple[Tensor, list[str], Tensor, Tensor]:
    """pixels [B, S, S, 3], B * N prompts, the structures they name [B, N] and their masks [B, N, S, S]."""
    n_prompts = rng.choice(PROMPTS_PER_IMAGE)
    pixels, prompts, structures, targets = [], [], [], []
    for i in rng.integers(len(images), size=BATCH):
        picture, masks = augmented(images[i], rng)
        visible = np.flatnonzero(masks.any((1, 2)))
        chosen = rng.choice(visible, n_prompts, replace=len(visible) < n_prompts)
        names = [images[i].structures[k] for k in chosen]
        pixels.append(picture.transpose(1, 2, 0))
        prompts += [sample_prompt(name, rng) for name in names]
        structures.append([STRUCTURES.index(name) for name in names])
        targets.append(masks[chosen])
    masks = torch.from_numpy(np.stack(targets)).float()
    return torch.from_numpy(np.stack(pixels)), prompts, torch.tensor(structures), masks


def class_sentences(templates: Collection[str], rng: np.random.Generator) -> list[str]:
    """A few sentences for each class, class after class."""
    return [str(t).format(name) for name in CLASSES for t in rng.choice(list(templates), SENTENCES_PER_CLASS)]


def step_loss(
    networks: nn.ModuleDict,
    pixels: Tensor,
    tokens: tuple[Tensor, Tensor],
    class_tokens: tuple[Tensor, Tensor],
    structures: Tensor,
    masks: Tensor,
) -> dict[str, Tensor]:
    """The loss, and for the log the mean Dice and the shares of right matches and right categories."""
    matched_masks: MatchedMasks = networks["mask_decoder"]
    decoder = matched_masks.mask_decoder
    finest, *memories = networks["image_encoder"](pixels)
    token_features, prompt_features = networks["text_encoder"](*tokens)
    by_image = (len(pixels), -1)
    states = decoder(
        finest,
        memories,
        token_features.unflatten(0, by_image).flatten(1, 2),
        (tokens[1] != 0).unflatten(0, by_image).flatten(1, 2),
    )
    rows = structures.unsqueeze(-1).expand(-1, -1, DEMO_2D.width)
    present = (masks.sum((2, 3)) > 0).float()
    side = finest.shape[-1]
    coarse = F.interpolate(masks, size=(side, side), mode="area")

    def mask_logits(queries: Tensor) -> Tensor:  # [B, N, H/4, W/4]
        return decoder.mask_features.logits(decoder.mask_embeddings(queries.gather(1, rows)), finest)

    early = sum(mask_loss(mask_logits(queries), coarse, present) for queries in states[:-1])
    fine = F.interpolate(mask_logits(states[-1]), size=masks.shape[2:], mode="bilinear")
    captions = decoder.captions(states[-1])
    scale = matched_masks.logit_scale.exp()
    cosines, matched = matched_masks.matching((captions, prompt_features.unflatten(0, by_image)))
    matching = F.cross_entropy(scale * cosines, structures)  # over the queries of each image
    classes = unit(networks["text_encoder"](*class_tokens)[1]).unflatten(0, (len(CLASSES), -1)).mean(1)
    logits = scale * unit(captions.gather(1, rows)) @ unit(classes).T  # [B, N, classes]
    categories = torch.tensor([CLASSES.index(CATEGORY_OF[name]) for name in STRUCTURES])[structures.cpu()]
    categories = categories.to(logits.device)
    naming = F.cross_entropy(logits.flatten(0, 1), categories.flatten())
    loss = mask_loss(fine, masks, present) + LAYERS_WEIGHT * early / len(states[:-1])
    with torch.no_grad():
        dice = 1 - (dice_loss((fine > 0).float(), masks) * present).sum() / present.sum()
    return {
        "loss": loss + MATCH_WEIGHT * matching + CATEGORY_WEIGHT * naming,
        "dice": dice,
        "match_right": (matched == structures).float().mean(),
        "category_right": (logits.argmax(-1) == categories).float().mean(),
    }


def train(n_steps: int, n_images: int, log: Path, device: torch.device) -> nn.ModuleDict:
    """Trains from fresh weights and returns the running average of the weights, rounded to float16."""
    rng = np.random.default_rng(SEED)
    networks = fresh_networks(DEMO_2D).to(device)
    templates = TEMPLATES.read_text("utf-8").splitlines()
    sentences = [template.format(name) for template in templates for name in CLASSES]
    prompts = [prompt for structure in STRUCTURES for prompt in training_prompts(structure)]
    tokens = Tokens([*prompts, *sentences], DEMO_2D.vocabulary_size, rng)
    images = [make_training_image(FIRST_TRAINING_SEED + i) for i in tqdm(range(n_images), desc="phantoms")]

    def step_measures(step: int) -> dict[str, Tensor]:
        images[rng.integers(n_images)] = make_training_image(FIRST_TRAINING_SEED + n_images + step)
        pixels, prompts, structures, masks = draw_step(images, rng)
        ids, mask, class_ids, class_mask = (
            tensor.to(device) for tensor in (*tokens(prompts), *tokens(class_sentences(templates, rng)))
        )
        pixels, structures, masks = (tensor.to(device) for tensor in (pixels, structures, masks))
        return step_loss(networks, pixels, (ids, mask), (class_ids, class_mask), structures, masks)

    embedding = networks["text_encoder"].text_encoder.token_embedding
    return fit(networks, embedding, tokens.unknown, step_measures, n_steps, log)


if __name__ == "__main__":
    checkpoint = Path(__file__).with_name("weights_2d") / "medimageparse_demo_2d.safetensors"
    run(__doc__.splitlines()[0], train, DEMO_2D, checkpoint, N_STEPS, images=N_IMAGES)
