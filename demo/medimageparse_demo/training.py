"""What the trainings of both demo checkpoints share: tokens, losses, the loop. Fixed seed; a CPU is enough."""

import argparse
import csv
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from medimageparse.checkpoint import save_checkpoint
from medimageparse.networks import build
from medimageparse.variants import Variant
from medimageparse_serving.prompts.clip_tokenizer import tokenize
from torch import Tensor, nn
from tqdm import tqdm

SEED = 0
FIRST_TRAINING_SEED = 1_000_000  # test phantoms have seeds below
UNKNOWN_WORDS_SHARE = 0.15  # of the prompts get tokens that training never teaches, so that new words mean nothing
LEARNING_RATE = 1e-3
WARM_UP = 300
WEIGHT_DECAY = 0.01
LAYER_SCALE = 0.3
AVERAGED_SHARE = 0.998  # of the running average of the weights that is kept each step


class Tokens:
    """Token ids of prompts, sometimes with tokens put in that no training prompt has, and with more padding."""

    def __init__(self, prompts: Collection[str], vocabulary_size: int, rng: np.random.Generator):
        self.rng = rng
        known = np.zeros(vocabulary_size, bool)
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


def shifted(arrays: Iterable[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Pictures and masks [..., H, W], all moved in the plane by the same few pixels, zeros from outside."""
    shift = rng.integers(-10, 11, size=2)
    moved = [np.roll(array, shift, (-2, -1)) for array in arrays]
    for axis, by in zip((-2, -1), shift, strict=True):
        edge: list = [Ellipsis, slice(None), slice(None)]
        edge[axis] = slice(0, by) if by >= 0 else slice(by, None)
        for array in moved:
            array[tuple(edge)] = 0
    return moved


def dice_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """1 - Dice for each image and prompt, [S, P]."""
    common = (probabilities * masks).sum((2, 3))
    return 1 - (2 * common + 1) / (probabilities.sum((2, 3)) + masks.sum((2, 3)) + 1)


def mask_loss(logits: Tensor, masks: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy everywhere, Dice where the structure is; logits and masks [S, P, H, W], present [S, P]."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((2, 3))
    # without Dice an absent structure would only be learned as a faint mask; existence is what rejects it
    weights = 0.2 + 0.8 * present
    overlap = (dice_loss(torch.sigmoid(logits), masks) * present).sum() / present.sum().clamp(min=1)
    return 5 * (cross_entropy * weights).mean() + overlap


def learning_rate(step: int, n_steps: int) -> float:
    """Linear warm-up, then a half cosine to almost nothing."""
    return min(step / WARM_UP, 1) * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * step / n_steps)))


def fresh_networks(variant: Variant) -> nn.ModuleDict:
    torch.manual_seed(SEED)
    networks = nn.ModuleDict(build(variant)).train()
    with torch.no_grad():
        for name, parameter in networks.named_parameters():
            if name.endswith(("gamma_1", "gamma_2")):
                parameter.fill_(LAYER_SCALE)
    return networks


def fit(
    networks: nn.ModuleDict,
    token_embedding: nn.Embedding,
    unknown_tokens: np.ndarray,
    step_measures: Callable[[int], dict[str, Tensor]],
    n_steps: int,
    log: Path,
    helpers: Iterable[nn.Parameter] = (),
) -> nn.ModuleDict:
    """Trains and returns the running average of the weights, rounded to float16.

    step_measures: the step's number -> what is logged, `loss` among it. helpers: parameters that only training has.
    """
    unknown = torch.from_numpy(unknown_tokens).to(token_embedding.weight.device)
    averaged = torch.optim.swa_utils.AveragedModel(
        networks, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGED_SHARE)
    )
    decayed = [p for p in networks.parameters() if p.ndim > 1]
    plain = [p for p in networks.parameters() if p.ndim <= 1] + list(helpers)
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}], lr=LEARNING_RATE
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, n_steps))
    recent: deque[dict[str, float]] = deque(maxlen=100)
    started = time.monotonic()
    with log.open("w", newline="") as file:
        writer = csv.writer(file)
        for step in tqdm(range(1, n_steps + 1), desc="steps"):
            measures = step_measures(step)
            optimizer.zero_grad()
            measures["loss"].backward()
            nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                token_embedding.weight[unknown] = 0  # a word that training does not teach says nothing
            averaged.update_parameters(networks)
            recent.append({name: value.item() for name, value in measures.items()})
            if step == 1:
                writer.writerow(["step", *measures, "seconds"])
            if step % 100 == 0:
                means = [f"{np.mean([one[name] for one in recent]):.4f}" for name in measures]
                writer.writerow([step, *means, round(time.monotonic() - started)])
                file.flush()
    trained = averaged.module.cpu().eval()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.copy_(parameter.half().float())
    return trained


def run(
    description: str,
    train: Callable[[int, int, Path, torch.device], nn.ModuleDict],
    variant: Variant,
    checkpoint: Path,
    n_steps: int,
    **phantoms: int,
) -> None:
    """The command line of a training. phantoms: what it trains on, one name and how many are at hand at a time."""
    [(things, n_things)] = phantoms.items()
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=checkpoint.parent, help="folder for checkpoint and log")
    parser.add_argument("--steps", type=int, default=n_steps)
    parser.add_argument(f"--{things}", dest="phantoms", type=int, default=n_things)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = train(arguments.steps, arguments.phantoms, arguments.out / "training_log.csv", device)
    save_checkpoint(arguments.out / checkpoint.name, dict(trained.items()), variant)
