"""Dice and categories on images training never saw: `python -m medimageparse_demo.evaluate_images` asks a server."""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np
from medimageparse_client import Client
from tqdm import tqdm

from medimageparse_demo.evaluate import dice, mean_dice
from medimageparse_demo.image_prompts import CATEGORY_OF, held_out_prompts, training_prompts
from medimageparse_demo.images import make_image

TEST_SEEDS = range(60)  # about twenty of each kind; training draws its images from seeds of a million and more


@dataclass(frozen=True)
class ImageAnswer:
    """What one prompt got; every structure asked for is in the image."""

    seed: int
    structure: str
    dice: float
    category: str

    @property
    def has_right_category(self) -> bool:
        return self.category == CATEGORY_OF[self.structure]


def ask(client: Client, seed: int, *, paraphrased: bool, joint: bool) -> list[ImageAnswer]:
    """One request: every structure of an image in one random wording each, in random order."""
    rng = np.random.default_rng((seed, paraphrased))
    phantom = make_image(seed)
    wordings = held_out_prompts if paraphrased else training_prompts
    structures = [str(structure) for structure in rng.permutation(list(phantom.masks))]
    prompts = [str(rng.choice(wordings(structure))) for structure in structures]
    result = client.segment_image(phantom.pixels, prompts, joint=joint)
    return [
        ImageAnswer(seed, structure, dice(result.mask(prompt), phantom.masks[structure]), category)
        for structure, prompt, category in zip(structures, prompts, result.categories, strict=True)
    ]


def evaluate(
    client: Client, seeds: Sequence[int] = TEST_SEEDS, *, paraphrased: bool = False, joint: bool = True
) -> list[ImageAnswer]:
    """All answers for some images, with progress on standard error; joint=False decodes each prompt alone."""
    shown = tqdm(seeds, desc="paraphrased" if paraphrased else "images", disable=not sys.stderr.isatty())
    return [answer for seed in shown for answer in ask(client, seed, paraphrased=paraphrased, joint=joint)]


def right_categories(answers: Sequence[ImageAnswer]) -> float:
    """Share of prompts that got the category of their structure."""
    return float(np.mean([answer.has_right_category for answer in answers]))


def write_table(answers: Sequence[ImageAnswer], file: TextIO) -> None:
    """One CSV row a structure, and one for all."""
    writer = csv.writer(file)
    writer.writerow(["structure", "images_with_it", "mean_dice", "lowest_dice", "right_category"])
    for name in [*sorted({answer.structure for answer in answers}), "all"]:
        of_name = [answer for answer in answers if name in (answer.structure, "all")]
        lowest = min(answer.dice for answer in of_name)
        shares = (mean_dice(of_name), lowest, right_categories(of_name))
        writer.writerow([name, len(of_name), *(f"{share:.4f}" for share in shares)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="localhost:8001", help="a server that serves the demo (make serve-demo)")
    parser.add_argument("--images", type=int, default=len(TEST_SEEDS))
    parser.add_argument("--paraphrased", action="store_true", help="ask in wordings that training never used")
    parser.add_argument("--alone", action="store_true", help="decode each prompt alone, not all of an image together")
    arguments = parser.parse_args()
    with Client(arguments.url) as client:
        answers = evaluate(
            client, range(arguments.images), paraphrased=arguments.paraphrased, joint=not arguments.alone
        )
    write_table(answers, sys.stdout)
    print(
        f"mean Dice {mean_dice(answers):.4f}, category right {right_categories(answers):.4f}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
