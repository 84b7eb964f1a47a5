"""Merging in numpy against the original's cases and against the graph's."""

import numpy as np
import pytest
import torch
from helpers.places import DATA
from medimageparse.merging import Merging
from medimageparse_serving.volume.merging import merge
from medimageparse_serving.volume.probabilities import exists, square_probabilities

GOLDEN = np.load(DATA / "v2_post_small.npz")
CASES = sorted({name.rsplit("/", 1)[0] for name in GOLDEN.files if name.startswith("post/")})


def merged(logits, scores, size):
    gates = exists(scores)
    slices = [
        merge(square_probabilities(*of, size), score, of[1])
        for of, score in zip(zip(logits, gates, strict=True), scores, strict=True)
    ]
    return tuple(np.stack(parts) for parts in zip(*slices, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_labels_are_the_originals(case):
    logits = GOLDEN[f"{case}/logits"].astype(np.float32).swapaxes(0, 1)
    existence = GOLDEN[f"{case}/existence"].T
    expected = GOLDEN[f"{case}/labels"]
    numbers = np.concatenate([[0], GOLDEN[f"{case}/ids"]])
    labels, _ = merged(logits, torch.tensor(existence).sigmoid().numpy(), expected.shape[-1])
    assert np.array_equal(numbers[labels], expected)


def test_crowded_slices_are_merged_as_in_the_graph():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 12, 8, 8, generator=generator) + 1
    existence = torch.randn(3, 12, generator=generator).round() / 2  # many equal ones, some exactly 0
    labels, scores, lost_to = Merging(8, 32)(logits, existence)
    found, lost = merged(logits.numpy(), scores.numpy(), 32)
    assert np.array_equal(found, labels)
    assert np.array_equal(lost, lost_to)
    assert lost.any()
