"""Intervals and rates."""

import json
import math

import numpy as np
import pytest
from helpers.places import SHARED
from medimageparse_client.evaluate.statistics import auroc, bootstrap, bootstrap_of, mean, wilson

GOLDEN = SHARED / "golden" / "metrics.json"
VALUES = [0.91, 0.83, math.nan, 0.77, 0.95, 0.6, 0.88]


@pytest.mark.skipif(not GOLDEN.exists(), reason="../shared is not there")
def test_golden_intervals():
    golden = json.loads(GOLDEN.read_text())
    for case in (golden["bootstrap"]["plain"], golden["bootstrap"]["clustered"]):
        values = [math.nan if value is None else value for value in case["values"]]
        assert mean(values) == pytest.approx(case["mean"], abs=1e-12)
        if "clusters" not in case:
            assert bootstrap(values) == pytest.approx(case["ci"], abs=1e-12)
    assert auroc(golden["auroc"]["present"], golden["auroc"]["absent"]) == pytest.approx(golden["auroc"]["value"])
    assert wilson(golden["wilson"]["k"], golden["wilson"]["n"]) == pytest.approx(golden["wilson"]["ci"], abs=1e-12)


def test_the_interval_of_a_mean_leaves_nan_out_and_is_the_same_every_time():
    assert bootstrap(VALUES) == pytest.approx((0.7266666666666667, 0.9049999999999999))
    assert bootstrap(VALUES) == bootstrap([value for value in VALUES if value == value])
    assert bootstrap(VALUES, seed=1) != bootstrap(VALUES)


def test_patients_are_drawn_whole():
    values = [0.1, 0.2, 0.3, 0.4, 0.5] * 4
    alone = bootstrap(values, list(range(20)))
    together = bootstrap(values, [k % 5 for k in range(20)])
    assert alone == bootstrap(values)
    assert together[1] - together[0] > alone[1] - alone[0]


@pytest.mark.parametrize("interval", [bootstrap([1.0] * 4), bootstrap([1, 1, 1, 1, math.nan]), wilson(4, 4)])
def test_below_five_units_there_is_no_interval(interval):
    assert interval is None


def test_draws_without_a_value_are_left_out_of_an_interval():
    def only_of_the_first(drawn):
        return np.where((drawn == 0).any(1), 1.0, np.nan)

    assert bootstrap_of(5, only_of_the_first) == (1.0, 1.0)
    assert bootstrap_of(5, lambda drawn: np.full(len(drawn), np.nan)) is None


def test_a_rate_has_wilsons_interval():
    low, high = wilson(19, 20)
    assert (low, high) == pytest.approx((0.763868806553258, 0.9911185511992047))
    assert wilson(0, 10)[0] == pytest.approx(0, abs=1e-12)


def test_ties_count_half():
    assert auroc([0.9, 0.8, 0.8, 0.4, 0.0], [0.8, 0.3, 0.1, 0.0, 0.0]) == pytest.approx(0.76)
    assert auroc([1], [0]) == 1
    assert auroc([0], [0]) == 0.5
    assert math.isnan(auroc([], [1]))
