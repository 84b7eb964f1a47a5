"""Dice and existence on phantoms that training never saw: `python -m medimageparse_demo.evaluate` asks a server."""

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TextIO

import numpy as np
from medimageparse_client import Client
from tqdm import tqdm

from medimageparse_demo.phantoms import MODALITY_STRUCTURES, STRUCTURES, Phantom, make_phantom
from medimageparse_demo.prompts import OTHER_STRUCTURES, held_out_prompts, training_prompts

TEST_SEEDS = range(20)  # training draws its phantoms from seeds of a million and more


@dataclass(frozen=True)
class Answer:
    """What one prompt got: Dice is None where the structure is absent."""

    seed: int
    structure: str
    is_present: bool
    found: bool
    dice: float | None
    score: float


class Scored(Protocol):
    """An answer about a volume or an image."""

    structure: str
    dice: float | None


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of two masks, 0..1."""
    return float(2 * np.count_nonzero(predicted & truth) / (np.count_nonzero(predicted) + np.count_nonzero(truth)))


def absent_structures(phantom: Phantom, n: int, rng: np.random.Generator) -> list[str]:
    """As many structures as asked that are not in the phantom; first those that its modality could have shown."""
    missing = [name for name in MODALITY_STRUCTURES[phantom.modality] if name not in phantom.structures]
    others = [
        name for name in (*STRUCTURES, *OTHER_STRUCTURES) if name not in phantom.structures and name not in missing
    ]
    return [*missing, *rng.permutation(others)][:n]


def ask(client: Client, seed: int, *, paraphrased: bool) -> list[Answer]:
    """One request: every structure of a phantom and as many that it does not have, each in one random wording."""
    rng = np.random.default_rng((seed, paraphrased))
    phantom = make_phantom(seed)
    wordings = held_out_prompts if paraphrased else training_prompts
    structures = [*phantom.structures, *absent_structures(phantom, len(phantom.structures), rng)]
    structures = [structures[i] for i in rng.permutation(len(structures))]
    prompts = [str(rng.choice(wordings(structure, phantom.modality))) for structure in structures]
    result = client.segment(phantom.intensities, prompts, affine=phantom.affine)
    answers = []
    for label, (structure, entry) in enumerate(zip(structures, result.report["prompts"], strict=True), start=1):
        is_present = structure in phantom.structures
        truth = phantom.labels == phantom.structures.get(structure, 0)
        overlap = dice(result.label_map == label, truth) if is_present else None
        answers.append(Answer(seed, structure, is_present, entry["present"], overlap, entry["highest_score"]))
    return answers


def evaluate(client: Client, seeds: Sequence[int] = TEST_SEEDS, *, paraphrased: bool = False) -> list[Answer]:
    """All answers for some phantoms, with progress on standard error."""
    shown = tqdm(seeds, desc="paraphrased" if paraphrased else "phantoms", disable=not sys.stderr.isatty())
    return [answer for seed in shown for answer in ask(client, seed, paraphrased=paraphrased)]


def dice_by_structure(answers: Iterable[Scored]) -> dict[str, float]:
    """Mean Dice of every structure over the volumes or images that have it."""
    overlaps = defaultdict(list)
    for answer in answers:
        if answer.dice is not None:
            overlaps[answer.structure].append(answer.dice)
    return {structure: float(np.mean(values)) for structure, values in sorted(overlaps.items())}


def mean_dice(answers: Iterable[Scored]) -> float:
    """Mean Dice over all present structures of all volumes or images."""
    return float(np.mean([answer.dice for answer in answers if answer.dice is not None]))


def right_existence(answers: Sequence[Answer]) -> float:
    """Share of prompts whose presence was judged right."""
    return float(np.mean([answer.found == answer.is_present for answer in answers]))


def write_table(answers: Sequence[Answer], file: TextIO) -> None:
    """One CSV row a structure, and one for all."""
    writer = csv.writer(file)
    writer.writerow(
        ["structure", "volumes_with_it", "mean_dice", "lowest_dice", "asked_when_absent", "found_when_absent"]
    )
    for name in [*dict.fromkeys(answer.structure for answer in answers), "all"]:
        of_name = [answer for answer in answers if name in (answer.structure, "all")]
        overlaps = [answer.dice for answer in of_name if answer.dice is not None]
        absent = [answer for answer in of_name if not answer.is_present]
        shown = [f"{np.mean(overlaps):.4f}", f"{min(overlaps):.4f}"] if overlaps else ["", ""]
        writer.writerow([name, len(overlaps), *shown, len(absent), sum(answer.found for answer in absent)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="localhost:8001", help="a server that serves the demo (make serve-demo)")
    parser.add_argument("--volumes", type=int, default=len(TEST_SEEDS))
    parser.add_argument("--paraphrased", action="store_true", help="ask in wordings that training never used")
    arguments = parser.parse_args()
    with Client(arguments.url) as client:
        answers = evaluate(client, range(arguments.volumes), paraphrased=arguments.paraphrased)
    write_table(answers, sys.stdout)
    print(f"mean Dice {mean_dice(answers):.4f}, existence right {right_existence(answers):.4f}", file=sys.stderr)


if __name__ == "__main__":
    main()
