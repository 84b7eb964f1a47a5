"""export_seeds.py tells what passed and what failed; machine_rate.py counts the arithmetic that networks need."""

import argparse
import csv

import pytest
from helpers.places import ROOT
from medimageparse.comparison import TOLERANCES
from medimageparse.variants import TINY, TINY_2D

pytestmark = pytest.mark.slow


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_every_seed_makes_a_row_of_what_passed_or_failed(benchmarks, tmp_path, monkeypatch):
    import export_seeds

    export, kept = export_seeds.graph_of, {}

    def export_once(module, network):
        """Both runs have the same seed, so the same graph."""
        if network.name not in kept:
            kept[network.name] = export(module, network)
        return kept[network.name]

    monkeypatch.setattr(export_seeds, "graph_of", export_once)
    results = tmp_path / "seeds.csv"
    few = ["--variants", "TINY_2D", "--decoders", "--examples", "1", "--precisions", "fp32", "--results", str(results)]
    export_seeds.main([*few, "--seeds", "1"])
    monkeypatch.setitem(TOLERANCES["fp32"], "relative", 0.0)
    export_seeds.main([*few, "--seeds", "1"])
    with results.open(newline="") as file:
        passed, failed = csv.DictReader(file)
    assert (passed["network"], passed["seed"], passed["failed"]) == ("mask_decoder", "1", "")
    assert 0 < float(passed["relative"]) < 3e-5
    assert failed["failed"].startswith("mask_decoder: mask_logits differs by")
    assert failed["relative"] == ""


def test_the_arithmetic_of_a_request_grows_with_slices_and_prompts(benchmarks):
    from machine_rate import floor_seconds, needed_gflop
    from techniques import ALL, IMAGE, MASKS, TEXT, Setup, make_request

    setup = Setup("cpu", TINY, argparse.Namespace(seed=1))
    one, two, three = (needed_gflop(setup, make_request(setup, 1, n)) for n in (1, 2, 3))
    more = needed_gflop(setup, make_request(setup, 2, 1))
    assert more[IMAGE] == pytest.approx(2 * one[IMAGE], rel=1e-3)  # the neighbours have digits too
    assert more[TEXT] == one[TEXT]
    assert two[MASKS] - one[MASKS] == pytest.approx(three[MASKS] - two[MASKS], rel=0.01)  # but for merging
    assert three[TEXT] == pytest.approx(3 * one[TEXT])
    rates = {"fp32_gflops": 100.0, "bf16_gflops": 400.0}
    assert floor_seconds(ALL, one, rates, "fp32") == pytest.approx(sum(one.values()) / 100)
    assert floor_seconds(IMAGE, one, rates, "image encoder bf16, rest fp32") == pytest.approx(one[IMAGE] / 400)
    assert floor_seconds("each extra prompt", one, rates, "fp32") == 0
    of_2d = Setup("cpu", TINY_2D, argparse.Namespace(seed=1))
    assert set(needed_gflop(of_2d, make_request(of_2d, 1, 1))) == {TEXT, IMAGE, MASKS}
