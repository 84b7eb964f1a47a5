"""The 3D metrics give the official code's numbers."""

import json

import numpy as np
import pytest
from helpers.places import SHARED
from medimageparse_client.evaluate.volume_metrics import (
    instance_scores,
    instance_scores_copy,
    instance_scores_no_wrap,
    label_scores,
    official_labels,
    semantic_scores,
)

GOLDEN = SHARED / "golden" / "metrics.json"
INSTANCE_SCORES = {
    "official": instance_scores,
    "no_wrap": instance_scores_no_wrap,
    "biomedparse_copy": instance_scores_copy,
}


def painted(shape, boxes):
    """Boxes [label, z0, z1, y0, y1, x0, x1], half open, in order on zeros."""
    volume = np.zeros(shape, np.int64)
    for label, z0, z1, y0, y1, x0, x1 in boxes:
        volume[z0:z1, y0:y1, x0:x1] = label
    return volume


def semantic(truth, predicted, spacing, labels):
    return semantic_scores(label_scores(truth, predicted, spacing, labels), official_labels(truth))


def golden(key):
    return json.loads(GOLDEN.read_text())[key] if GOLDEN.exists() else []


def equal(value, expected):
    assert value == pytest.approx(np.nan if expected is None else expected, abs=1e-12, nan_ok=True)


@pytest.mark.skipif(not GOLDEN.exists(), reason="../shared is not there")
def test_there_are_golden_cases_of_both_kinds():
    assert {case["instance_label"] for case in golden("cases_3d")} == {0, 1}


@pytest.mark.parametrize("case", [c for c in golden("cases_3d") if not c["instance_label"]], ids=lambda c: c["name"])
def test_semantic_golden_cases(case):
    truth, predicted = (painted(case["shape"], case[name]) for name in ("gt", "seg"))
    labels = label_scores(truth, predicted, case["spacing"], case["class_ids"])
    scores, official = semantic_scores(labels, official_labels(truth)), case["official"]
    equal(scores.dsc, official["DSC"])
    equal(scores.nsd, official["NSD"])
    equal(scores.nsd_array_order, official["NSD_array_order"])
    by_label = {str(label.label): (label.dsc, label.nsd, label.nsd_array_order) for label in labels}
    for label, expected in official["per_label"].items():
        for value, wanted in zip(by_label[label], expected, strict=True):
            equal(value, wanted)


@pytest.mark.parametrize("case", [c for c in golden("cases_3d") if c["instance_label"]], ids=lambda c: c["name"])
@pytest.mark.parametrize("kind", INSTANCE_SCORES)
def test_instance_golden_cases(case, kind):
    if "single_voxels" in case:
        truth, predicted = many_components(200, 300)
    else:
        truth, predicted = (painted(case["shape"], case[name]) for name in ("gt", "seg"))
    scores = INSTANCE_SCORES[kind](truth, predicted)
    equal(scores.f1, case[kind]["F1"])
    equal(scores.dsc_tp, case[kind]["DSC_TP"])
    if case.get("seg") == []:  # the official code then counts no miss; its scores are 0 all the same
        assert scores.missed == len(case["gt"])
        return
    assert (scores.pairs, scores.extra, scores.missed) == tuple(case[kind][name] for name in ("tp", "fp", "fn"))


def many_components(n_true, n_predicted):
    """Single voxels that do not touch: true ones numbered, predicted ones all 1."""
    truth, predicted = np.zeros((2, 12, 20, 10), np.int64)
    places = np.argwhere(np.indices((12, 20, 10)).max(0) * 0 == 0).reshape(12, 20, 10, 3)[::2, ::2, ::2].reshape(-1, 3)
    for number, place in enumerate(places[:n_predicted], start=1):
        predicted[tuple(place)] = 1
        truth[tuple(place)] = number if number <= n_true else 0
    return truth, predicted


@pytest.mark.slow
@pytest.mark.parametrize("case", golden("real_3d"), ids=lambda c: f"{c['file']} {c['prediction']}")
def test_real_cases_moved_by_some_voxels(case):
    folder = SHARED / "data" / "gts"
    with np.load(folder / case["file"]) as file:
        truth, spacing = file["gts"], file["spacing"]
    by, axis = (int(word) for word in case["prediction"].removeprefix("np.roll(gts, ").removesuffix(")").split(", "))
    labels = label_scores(truth, np.roll(truth, by, axis), spacing, [int(label) for label in case["per_label"]])
    scores = semantic_scores(labels, official_labels(truth))
    equal(scores.dsc, case["DSC"])
    equal(scores.nsd, case["NSD"])
    equal(scores.nsd_array_order, case["NSD_array_order"])


BOX = [1, 2, 8, 4, 12, 5, 15]


@pytest.mark.parametrize(
    ("moved", "dsc", "nsd"),
    [((0, 0, 0), 1, 1), ((0, 0, 2), 0.8, 1), ((0, 0, 3), 0.7, 0.839147)],
    ids=["not moved", "moved by the tolerance", "moved by more"],
)
def test_a_box_moved_along_the_last_axis(moved, dsc, nsd):
    truth = painted((16, 20, 24), [BOX])
    scores = semantic(truth, np.roll(truth, moved, (0, 1, 2)), (1, 1, 1), [1])
    assert scores.dsc == pytest.approx(dsc, abs=1e-6)
    assert scores.nsd == pytest.approx(nsd, abs=1e-6)


def test_the_official_surface_dice_takes_the_spacing_of_the_file_for_the_array_axes():
    truth = painted((16, 20, 24), [BOX])
    scores = semantic(truth, np.roll(truth, 1, 0), (0.8, 0.8, 5), [1])
    assert scores.nsd == 1  # 0.8 mm, it says
    assert scores.nsd_array_order < 0.9  # 5 mm, it is


@pytest.mark.parametrize("moved", [(0, 0, 0), (1, 2, 1), (-2, -4, -5), (8, 8, 9)])
def test_a_label_at_the_rim_scores_as_in_the_whole_volume(moved):
    whole = np.zeros((16, 20, 24), np.int64)
    whole[:6, :8, :10] = 1
    predicted = np.roll(whole, moved, (0, 1, 2))
    boxed = label_scores(whole, predicted, (1.0, 1.5, 2.0), [1])[0]
    # two voxels far away in both make the box the whole volume
    ends = np.zeros_like(whole)
    ends[0, 0, 0] = ends[-1, -1, -1] = 2
    assert boxed.dsc == label_scores(whole, predicted, (1.0, 1.5, 2.0), [1, 2])[0].dsc
    padded = [np.pad(volume, 3) for volume in (whole, predicted)]
    assert boxed.nsd == pytest.approx(label_scores(*padded, (1.0, 1.5, 2.0), [1])[0].nsd, abs=1e-12)


def test_a_missed_label_is_0_and_one_that_is_only_predicted_counts_in_dsc_all_alone():
    truth = painted((16, 20, 24), [[1, 0, 4, 0, 4, 0, 4], [2, 6, 9, 6, 9, 6, 9]])
    predicted = painted((16, 20, 24), [[1, 0, 4, 0, 4, 0, 4], [3, 10, 12, 10, 12, 10, 12]])
    scores = semantic(truth, predicted, (1, 1, 1), [1, 2, 3])
    assert scores.dsc == 0.5
    assert scores.nsd == 0.5
    assert scores.dsc_all == pytest.approx(1 / 3)


def test_a_truth_without_labels_has_no_score():
    empty = np.zeros((4, 4, 4), np.int64)
    scores = semantic(empty, empty, (1, 1, 1), [1])
    assert np.isnan([scores.dsc, scores.nsd, scores.dsc_all]).all()


def test_surfaces_are_left_out_where_they_are_not_asked_for():
    truth = painted((16, 20, 24), [BOX])
    [scores] = label_scores(truth, truth, (1, 1, 1), [1], surface=False)
    assert scores.dsc == 1
    assert np.isnan(scores.nsd)


def test_two_touching_instances_in_one_answer_are_one_for_the_official_code():
    truth = painted((8, 8, 12), [[1, 2, 6, 2, 6, 0, 6], [2, 2, 6, 2, 6, 6, 9]])
    predicted = (truth > 0).astype(np.int64)
    official = instance_scores(truth, predicted)
    assert (official.pairs, official.extra, official.missed) == (1, 0, 1)
    assert instance_scores_copy(truth, predicted).f1 == 1


def test_from_255_components_on_the_official_code_wraps():
    truth, predicted = many_components(200, 300)
    assert instance_scores(truth, predicted).f1 == pytest.approx(0.879121, abs=1e-6)
    assert instance_scores_no_wrap(truth, predicted).f1 == pytest.approx(0.8)


def test_no_instances_on_a_side_are_scored_0():
    truth = painted((8, 8, 8), [[1, 2, 4, 2, 4, 2, 4]])
    empty = np.zeros_like(truth)
    for pair in ((truth, empty), (empty, truth), (empty, empty)):
        scores = instance_scores(*pair)
        assert (scores.f1, scores.dsc_tp) == (0, 0)
