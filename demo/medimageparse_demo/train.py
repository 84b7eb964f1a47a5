"""Trains the DEMO variant on phantoms: `python -m medimageparse_demo.train`. Fixed seed; a CPU is enough.

The networks are the served ones with the noise constant of the served graph. Each step decodes a few prompts on single
slices of several volumes: masks by cross-entropy and Dice at every decoder layer, edges and existence by cross-entropy.
A linear layer that names the structure from the prompt's last token keeps prompts apart; only training has it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from medimageparse.variants import DEMO
from medimageparse_serving.volume.sliding_window import with_halo
from torch import Tensor, nn
from tqdm import tqdm

from medimageparse_demo.phantoms import MODALITY_STRUCTURES, STRUCTURES, labels_dhw, make_phantom, windowed
from medimageparse_demo.prompts import NAMES, sample_absent_prompt, sample_prompt, training_prompts
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

N_VOLUMES = 600  # at hand at a time; every second step one of them is drawn anew
N_STEPS = 7000
MASK_STRIDE = 4  # mask logits have a quarter of the image's side
N_SLICES = 6  # per step, from so many volumes
N_PROMPTS = 8  # per step, each asked on every slice
PRESENT_SHARE = 0.65  # of the prompts name something in one of the step's volumes
EDGE_WEIGHT, EXISTENCE_WEIGHT, LAYERS_WEIGHT, NAME_WEIGHT = 0.3, 1.0, 0.5, 0.3


@dataclass(frozen=True)
class Volume:
    """Slices first: intensities and labels uint8 [D, H, W]."""

    slices: np.ndarray
    labels: np.ndarray
    modality: str


def make_volume(seed: int) -> Volume:
    phantom = make_phantom(seed)
    return Volume(windowed(phantom), labels_dhw(phantom), phantom.modality)


def three_slices(slices: np.ndarray, d: int) -> np.ndarray:
    """Slice d with its neighbours as channels, reflected at the ends (spec section 1.5), [3, H, W]."""
    before, own, after = with_halo(range(d, d + 1), len(slices))
    return slices[[own, before, after]]


def augmented(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shifted in the plane, with other contrast and more noise."""
    image, labels = shifted((image.astype(np.float32), labels), rng)
    image = image * rng.uniform(0.88, 1.12) + rng.uniform(-12, 12)
    image += rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(0, 10)
    return np.clip(image, 0, 255).round(), labels


def draw_step(volumes: list[Volume], rng: np.random.Generator) -> tuple[Tensor, list[str], Tensor, Tensor]:
    """Images [S, 3, H, W], prompts, the structures they name as indices of NAMES [P], and target masks [S, P, H, W]."""
    chosen = [volumes[i] for i in rng.integers(len(volumes), size=N_SLICES)]
    pairs = [
        augmented(three_slices(v.slices, d), v.labels[d], rng) for v in chosen for d in [rng.integers(len(v.slices))]
    ]
    images, labels = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    names = {label: name for name, label in STRUCTURES.items()}
    prompts, structures, targets = [], [], []
    while len(prompts) < N_PROMPTS:
        s = rng.integers(N_SLICES)
        volume = chosen[s]
        here = np.unique(volume.labels)[1:]
        if rng.random() < PRESENT_SHARE:
            in_slice = np.unique(labels[s])[1:]
            candidates = in_slice if len(in_slice) and rng.random() < 0.75 else here
            label = candidates[rng.integers(len(candidates))]
            structure = names[label]
            prompt = sample_prompt(structure, volume.modality, rng)
        else:
            present = [names[label] for label in here]
            structure, prompt = sample_absent_prompt(rng, present, volume.modality)
        prompts.append(prompt)
        structures.append(list(NAMES).index(structure))
        targets.append(labels == STRUCTURES.get(structure, 255))
    masks = torch.from_numpy(np.stack(targets, axis=1)).float()
    return torch.from_numpy(images), prompts, torch.tensor(structures), masks


def edges_of(masks: Tensor) -> Tensor:
    """Boundary band of target masks [S, P, H, W]: pixels whose neighbourhood is not all one value."""
    grown = F.max_pool2d(masks, 5, stride=1, padding=2)
    return grown + F.max_pool2d(-masks, 5, stride=1, padding=2)


def step_loss(
    networks: nn.ModuleDict,
    namer: nn.Linear,
    images: Tensor,
    tokens: tuple[Tensor, Tensor],
    structures: Tensor,
    masks: Tensor,
) -> dict[str, Tensor]:
    """Loss, and for the log the mean Dice of present structures and the share of right existence decisions."""
    finest, *memories = networks["image_encoder_3d"].encode(images)
    text_features = networks["text_encoder_3d"](*tokens)
    last = tokens[1].sum(1) - 1
    naming = F.cross_entropy(namer(text_features[torch.arange(len(last)), last]), structures)
    prompted = networks["mask_decoder_3d"]
    decoder = prompted.mask_decoder
    noise = prompted.noise_of(torch.zeros(1, dtype=torch.int64, device=finest.device))
    rounds, existence = decoder.decode(finest, memories, text_features, noise)
    present = (masks.sum((2, 3)) > 0).float()
    coarse = F.avg_pool2d(masks, MASK_STRIDE)
    early = sum(mask_loss(decoder.mask_and_edge_logits(finest, e)[0], coarse, present) for e in rounds[:-1])
    mask_logits, edge_logits = decoder.mask_and_edge_logits(finest, rounds[-1])
    enlarge = prompted.merging.enlarge
    fine = enlarge @ mask_logits @ enlarge.T
    edges = F.binary_cross_entropy_with_logits(edge_logits, F.avg_pool2d(edges_of(masks), MASK_STRIDE))
    rejection = F.binary_cross_entropy_with_logits(existence, present)
    loss = mask_loss(fine, masks, present) + LAYERS_WEIGHT * early / len(rounds[:-1])
    loss = loss + EDGE_WEIGHT * edges + EXISTENCE_WEIGHT * rejection + NAME_WEIGHT * naming
    with torch.no_grad():
        dice = 1 - (dice_loss((fine > 0).float(), masks) * present).sum() / present.sum().clamp(min=1)
        right = ((existence > 0) == (present > 0)).float().mean()
    return {"loss": loss, "dice_present": dice, "existence_right": right}


def train(n_steps: int, n_volumes: int, log: Path, device: torch.device) -> nn.ModuleDict:
    """Trains from fresh weights and returns the running average of the weights, rounded to float16."""
    rng = np.random.default_rng(SEED)
    networks = fresh_networks(DEMO).to(device)
    namer = nn.Linear(DEMO.width, len(NAMES)).to(device)
    prompts = [
        prompt for structure in NAMES for scan in MODALITY_STRUCTURES for prompt in training_prompts(structure, scan)
    ]
    tokens = Tokens(prompts, DEMO.vocabulary_size, rng)
    volumes = [make_volume(FIRST_TRAINING_SEED + i) for i in tqdm(range(n_volumes), desc="phantoms")]

    def step_measures(step: int) -> dict[str, Tensor]:
        if step % 2 == 0:
            volumes[rng.integers(n_volumes)] = make_volume(FIRST_TRAINING_SEED + n_volumes + step)
        images, prompts, structures, masks = draw_step(volumes, rng)
        images, structures, masks = (tensor.to(device) for tensor in (images, structures, masks))
        ids, mask = (tensor.to(device) for tensor in tokens(prompts))
        return step_loss(networks, namer, images, (ids, mask), structures, masks)

    embedding = networks["text_encoder_3d"].text_encoder.token_embedding
    return fit(networks, embedding, tokens.unknown, step_measures, n_steps, log, helpers=namer.parameters())


if __name__ == "__main__":
    checkpoint = Path(__file__).with_name("weights") / "medimageparse_demo.safetensors"
    run(__doc__.splitlines()[0], train, DEMO, checkpoint, N_STEPS, volumes=N_VOLUMES)
