"""The 2D metrics give upstream's numbers."""

import json

import numpy as np
import pytest
from helpers.places import SHARED
from medimageparse_client.evaluate.image_metrics import MaskCounts, totals

GOLDEN = SHARED / "golden" / "metrics.json"


def painted(boxes):
    mask = np.zeros((16, 16), np.bool_)
    for y0, y1, x0, x1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.skipif(not GOLDEN.exists(), reason="../shared is not there")
def test_golden_masks_and_totals():
    golden = json.loads(GOLDEN.read_text())["cases_2d"]
    counts = [MaskCounts.of(painted(case["gt"]), painted(case["pred"])) for case in golden["masks"]]
    for mask, case in zip(counts, golden["masks"], strict=True):
        assert (mask.common, mask.union) == (case["I"], case["U"])
        assert mask.iou == pytest.approx(case["IoU"], abs=1e-6)
        assert mask.dice == pytest.approx(case["Dice"], abs=1e-6)
    assert totals(counts) == pytest.approx(golden["totals_percent"], abs=1e-5)


def test_half_an_overlap_counts_as_precision_at_half():
    half = MaskCounts(truth=64, predicted=32, common=32)
    assert half.iou == 0.5
    assert totals([half])["precision@0.5"] == 100


def test_two_empty_masks_score_0():
    empty = MaskCounts.of(painted([]), painted([]))
    assert (empty.dice, empty.iou) == (0, 0)
    assert totals([empty])["cDice"] == 0


def test_cumulative_totals_weigh_masks_by_their_size():
    large, small = MaskCounts(100, 100, 100), MaskCounts(10, 10, 0)
    assert totals([large, small])["mDice"] == 50
    assert totals([large, small])["cDice"] == pytest.approx(100 * 100 / 110)
