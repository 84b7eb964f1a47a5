"""Trains the DEMO variant on phantoms: `python -m medimageparse_demo.train`. Fixed seed; a CPU is enough.

The networks are the served ones with the noise constant of the served graph. Each step decodes a few prompts on single
slices of several volumes: masks by cross-entropy and Dice at every decoder layer, edges and existence by cross-entropy.
"""

import argparse
import csv
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from clip_tokenizer import tokenize
from medimageparse.checkpoint import save_checkpoint
from medimageparse.networks import build
from medimageparse.variants import DEMO
from sliding_window import with_halo
from torch import Tensor, nn
from tqdm import tqdm

from medimageparse_demo.phantoms import MODALITY_STRUCTURES, STRUCTURES, labels_dhw, make_phantom, windowed
from medimageparse_demo.prompts import NAMES, sample_absent_prompt, sample_prompt, training_prompts

SEED = 0
FIRST_TRAINING_SEED = 1_000_000  # test phantoms have seeds below
N_VOLUMES = 1000
N_STEPS = 6000
MASK_STRIDE = 4  # mask logits have a quarter of the image's side
N_SLICES = 6  # per step, from so many volumes
N_PROMPTS = 8  # per step, each asked on every slice
PRESENT_SHARE = 0.65  # of the prompts name something in one of the step's volumes
UNKNOWN_WORDS_SHARE = 0.15  # of the prompts get tokens that training never teaches, so that new words mean nothing
LEARNING_RATE = 1e-3
WARM_UP = 300
WEIGHT_DECAY = 0.01
LAYER_SCALE = 0.3
AVERAGED_SHARE = 0.998  # of the running average of the weights that is kept each step
EDGE_WEIGHT, EXISTENCE_WEIGHT, LAYERS_WEIGHT = 0.3, 1.0, 0.5


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
    shift = rng.integers(-10, 11, size=2)
    image, labels = np.roll(image, shift, (-2, -1)).astype(np.float32), np.roll(labels, shift, (-2, -1))
    for axis, by in zip((-2, -1), shift, strict=True):
        edge = [slice(None)] * 3
        edge[axis] = slice(0, by) if by >= 0 else slice(by, None)
        image[tuple(edge)] = 0
        labels[tuple(edge[1:])] = 0
    image = image * rng.uniform(0.88, 1.12) + rng.uniform(-12, 12)
    image += rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(0, 10)
    return np.clip(image, 0, 255).round(), labels


def draw_step(volumes: list[Volume], rng: np.random.Generator) -> tuple[Tensor, list[str], Tensor]:
    """Images [S, 3, H, W], prompts and target masks [S, P, H, W]."""
    chosen = [volumes[i] for i in rng.integers(len(volumes), size=N_SLICES)]
    pairs = [
        augmented(three_slices(v.slices, d), v.labels[d], rng) for v in chosen for d in [rng.integers(len(v.slices))]
    ]
    images, labels = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    names = {label: name for name, label in STRUCTURES.items()}
    prompts, targets = [], []
    while len(prompts) < N_PROMPTS:
        s = rng.integers(N_SLICES)
        volume = chosen[s]
        here = np.unique(volume.labels)[1:]
        if rng.random() < PRESENT_SHARE:
            in_slice = np.unique(labels[s])[1:]
            candidates = in_slice if len(in_slice) and rng.random() < 0.75 else here
            label = candidates[rng.integers(len(candidates))]
            prompts.append(sample_prompt(names[label], volume.modality, rng))
            targets.append(labels == label)
        else:
            present = [names[label] for label in here]
            structure, prompt = sample_absent_prompt(rng, present, volume.modality)
            prompts.append(prompt)
            targets.append(labels == STRUCTURES.get(structure, 255))
    return torch.from_numpy(images), prompts, torch.from_numpy(np.stack(targets, axis=1)).float()


class Tokens:
    """Token ids of prompts, sometimes with tokens put in that no training prompt has, and with more padding."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        prompts = [
            prompt
            for structure in NAMES
            for scan in MODALITY_STRUCTURES
            for prompt in training_prompts(structure, scan)
        ]
        known = np.zeros(DEMO.vocabulary_size, bool)
        known[np.unique(tokenize([*prompts, ". ? !"])[0])] = True
        self.unknown = np.flatnonzero(~known)

    def __call__(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """input_ids, attention_mask [P, T]."""
        input_ids, attention_mask, _ = tokenize(prompts)
        rows = [ids[mask == 1].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]
        for row in rows:
            if self.rng.random() < UNKNOWN_WORDS_SHARE:
                for token in self.rng.choice(self.unknown, size=self.rng.integers(1, 4)):
                    row.insert(self.rng.integers(1, len(row)), int(token))
        padding = self.rng.integers(0, 8) if self.rng.random() < 0.3 else 0
        longest = max(map(len, rows)) + padding
        padded = np.array([row + [0] * (longest - len(row)) for row in rows])
        lengths = np.array([[len(row)] for row in rows])
        return torch.from_numpy(padded), torch.from_numpy((np.arange(longest) < lengths).astype(np.int64))


def edges_of(masks: Tensor) -> Tensor:
    """Boundary band of target masks [S, P, H, W]: pixels whose neighbourhood is not all one value."""
    grown = F.max_pool2d(masks, 5, stride=1, padding=2)
    return grown + F.max_pool2d(-masks, 5, stride=1, padding=2)


def dice_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """1 - Dice for each slice and prompt, [S, P]."""
    common = (probabilities * masks).sum((2, 3))
    return 1 - (2 * common + 1) / (probabilities.sum((2, 3)) + masks.sum((2, 3)) + 1)


def mask_loss(logits: Tensor, masks: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy everywhere, Dice where the structure is; logits and masks [S, P, H, W], present [S, P]."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((2, 3))
    # without Dice an absent structure would only be learned as a faint mask; existence is what rejects it
    weights = 0.2 + 0.8 * present
    overlap = (dice_loss(torch.sigmoid(logits), masks) * present).sum() / present.sum().clamp(min=1)
    return 5 * (cross_entropy * weights).mean() + overlap


def step_loss(
    networks: nn.ModuleDict, images: Tensor, tokens: tuple[Tensor, Tensor], masks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, and for the log the mean Dice of present structures and the share of right existence decisions."""
    mask_features, *memories = networks["image_encoder_3d"].encode(images)
    text_features = networks["text_encoder_3d"](*tokens)
    prompted = networks["mask_decoder_3d"]
    decoder = prompted.mask_decoder
    noise = [getattr(prompted, f"noise_{layer}") for layer in range(DEMO.n_decoder_layers)]
    rounds, existence = decoder.decode(mask_features, memories, text_features, noise)
    present = (masks.sum((2, 3)) > 0).float()
    coarse = F.avg_pool2d(masks, MASK_STRIDE)
    early = sum(mask_loss(decoder.mask_and_edge_logits(mask_features, e)[0], coarse, present) for e in rounds[:-1])
    mask_logits, edge_logits = decoder.mask_and_edge_logits(mask_features, rounds[-1])
    enlarge = prompted.merging.enlarge
    fine = enlarge @ mask_logits @ enlarge.T
    edges = F.binary_cross_entropy_with_logits(edge_logits, F.avg_pool2d(edges_of(masks), MASK_STRIDE))
    rejection = F.binary_cross_entropy_with_logits(existence, present)
    loss = mask_loss(fine, masks, present) + LAYERS_WEIGHT * early / len(rounds[:-1])
    loss = loss + EDGE_WEIGHT * edges + EXISTENCE_WEIGHT * rejection
    with torch.no_grad():
        dice = 1 - (dice_loss((fine > 0).float(), masks) * present).sum() / present.sum().clamp(min=1)
        right = ((existence > 0) == (present > 0)).float().mean()
    return loss, dice, right


def learning_rate(step: int, n_steps: int) -> float:
    """Linear warm-up, then a half cosine to almost nothing."""
    return min(step / WARM_UP, 1) * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * step / n_steps)))


def fresh_networks() -> nn.ModuleDict:
    torch.manual_seed(SEED)
    networks = nn.ModuleDict(build(DEMO)).train()
    with torch.no_grad():
        for name, parameter in networks.named_parameters():
            if name.endswith(("gamma_1", "gamma_2")):
                parameter.fill_(LAYER_SCALE)
    return networks


def train(n_steps: int, n_volumes: int, log: Path, device: torch.device) -> nn.ModuleDict:
    """Trains from fresh weights and returns the running average of the weights, rounded to float16."""
    rng = np.random.default_rng(SEED)
    networks = fresh_networks().to(device)
    tokens = Tokens(rng)
    embedding = networks["text_encoder_3d"].text_encoder.token_embedding.weight
    unknown = torch.from_numpy(tokens.unknown).to(device)
    averaged = torch.optim.swa_utils.AveragedModel(
        networks, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGED_SHARE)
    )
    decayed = [p for p in networks.parameters() if p.ndim > 1]
    plain = [p for p in networks.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}], lr=LEARNING_RATE
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, n_steps))
    volumes = [make_volume(FIRST_TRAINING_SEED + i) for i in tqdm(range(n_volumes), desc="phantoms")]
    recent: deque[tuple[float, float, float]] = deque(maxlen=100)
    started = time.monotonic()
    with log.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss", "dice_present", "existence_right", "seconds"])
        for step in tqdm(range(1, n_steps + 1), desc="steps"):
            images, prompts, masks = draw_step(volumes, rng)
            ids, mask = tokens(prompts)
            loss, dice, right = step_loss(
                networks, images.to(device), (ids.to(device), mask.to(device)), masks.to(device)
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                embedding[unknown] = 0  # a word that training does not teach says nothing
            averaged.update_parameters(networks)
            recent.append((loss.item(), dice.item(), right.item()))
            if step % 100 == 0:
                means = [f"{value:.4f}" for value in np.mean(recent, axis=0)]
                writer.writerow([step, *means, round(time.monotonic() - started)])
                file.flush()
    trained = averaged.module.cpu().eval()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.copy_(parameter.half().float())
    return trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("weights"), help="folder for checkpoint and log"
    )
    parser.add_argument("--steps", type=int, default=N_STEPS)
    parser.add_argument("--volumes", type=int, default=N_VOLUMES)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = train(arguments.steps, arguments.volumes, arguments.out / "training_log.csv", device)
    save_checkpoint(arguments.out / "medimageparse_demo.safetensors", dict(trained.items()), DEMO)


if __name__ == "__main__":
    main()
