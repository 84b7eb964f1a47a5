"""The benchmark scripts run on small models and write rows with their conditions; nothing timed is asserted."""

import argparse
import csv
import os
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
import torch
from helpers.places import ROOT
from helpers.tiny_networks import SEED, random_networks
from medimageparse.variants import TINY, TINY_2D

pytestmark = pytest.mark.slow

DEMO_GRAPHS = ROOT / "demo" / "medimageparse_demo" / "weights"
DEMO_2D_GRAPHS = ROOT / "demo" / "medimageparse_demo" / "weights_2d"
PERF_ANALYZER = ROOT / "build" / "perf_analyzer" / "perf_analyzer"
SMALL_VOLUME = ["--slices", "2", "--prompts", "1", "--requests", "1", "--graphs", str(DEMO_GRAPHS)]


@pytest.fixture
def ways(monkeypatch):
    """techniques, with original_schedule in it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import techniques

    return techniques


def small_setup(ways, variant, n_slices, n_prompts):
    """The test's random networks, and a request for them."""
    setup = ways.Setup("cpu", variant, argparse.Namespace(seed=SEED))
    return random_networks(variant), ways.make_request(setup, n_slices, n_prompts)


def rows_of(folder: Path, script: str, *arguments: str) -> list[dict[str, str]]:
    results = folder / "results.csv"
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--work", str(folder), "--results", str(results)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *arguments], env=environment, check=True, timeout=300)
    with results.open(newline="") as file:
        return list(csv.DictReader(file))


def report_of(folder: Path, name: str) -> str:
    """The tables that report.py prints for a result file."""
    (folder / "results.csv").rename(folder / f"{name}.csv")
    command = [sys.executable, str(ROOT / "benchmarks" / "report.py"), "--results", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_served_volume_makes_a_row(tmp_path):
    (row,) = rows_of(tmp_path, "gpu_served.py", *SMALL_VOLUME, "--device", "cpu", "--window-size", "2")

    assert row["commit"]
    assert row["cpu"]
    assert row["onnxruntime"]
    assert (row["variant"], row["precision"], row["prompts"], row["window_size"]) == ("DEMO", "fp32", "1", "2")
    assert float(row["peak_rss_sum_gb"]) > float(row["rss_image_encoder_3d_gb"]) > 0
    assert all(float(row[f"{network}_3d_ms"]) > 0 for network in ("text_encoder", "image_encoder", "mask_decoder"))


def test_the_time_of_the_service_alone_makes_a_row(tmp_path):
    arguments = "--variant TINY --slices 5 --prompts 2 --times 1 --files nii --protocols grpc --at-once 2"

    (row,) = rows_of(tmp_path, "own_time.py", *arguments.split())

    assert (row["file"], row["slices"], row["at_once"], row["protocol"]) == ("nii", "5", "2", "grpc")
    steps = ("decode", "tokens", "text", "networks", "encode", "between")
    assert all(float(row[f"{step}_ms"]) > 0 for step in (*steps, "best", "cpu"))
    assert float(row["decode_in_mb"]) == pytest.approx(float(row["file_mb"]), rel=0.01)
    assert float(row["networks_out_mb"]) > 0 < float(row["encode_in_mb"])


def test_a_second_prompt_makes_a_row_with_the_cache_and_one_without(tmp_path):
    few = ["--slices", "1", "--rounds", "1", "--graphs", str(DEMO_GRAPHS)]

    rows = rows_of(tmp_path, "asking_again.py", *few)

    assert [row["cache"] for row in rows] == ["as served", "off"]
    assert all(float(row["first_s"]) > 0 < float(row["second_s"]) for row in rows)


def test_every_network_and_technique_makes_a_row(tmp_path):
    arguments = "--device cpu --variant TINY --slices 1 --prompts 1 --rounds 2 --techniques eager-fp32 typed-fp16"

    rows = rows_of(tmp_path, "gpu_networks.py", *arguments.split())

    parts = ["text encoder", "image encoder", "mask decoder", "all"]
    ways = ("original", "ours, PyTorch", "ours, PyTorch, fp16 weights")
    class_names = ("original", "class names, once per request")
    assert [(row["way"], row["part"]) for row in rows] == [*((w, p) for w in ways for p in parts), class_names]
    assert all(float(row["relative_l2"]) < 1e-4 for row in rows[4:8])
    assert all(1e-4 < float(row["relative_l2"]) < 0.1 for row in rows[8:12])
    assert all(float(row["times_original"]) > 0 for row in rows)
    assert all(row["commit"] and row["torch"] for row in rows)


@torch.no_grad()
@pytest.mark.parametrize("n_prompts", [1, 4])
def test_the_originals_schedule_computes_what_our_3d_networks_compute(ways, n_prompts):
    modules, request = small_setup(ways, TINY, n_slices=3, n_prompts=n_prompts)
    original, decoder = ways.schedule, modules["mask_decoder_3d"]
    prompts = (request["input_ids"], request["attention_mask"])
    window = (request["window"], request["digit_values"])

    text = original.text_3d(modules["text_encoder_3d"], *prompts)
    mask_features = decoder.mask_decoder.mask_features
    features = original.image_3d(modules["image_encoder_3d"], mask_features, *window)
    noise = decoder.noise_of(torch.zeros(1, dtype=torch.int64))
    mask_logits, edge_logits, existence = original.masks_3d(decoder, features, text, noise)
    labels, scores = original.merge_3d(mask_logits, existence, TINY.image_size)

    expected_text = modules["text_encoder_3d"](*prompts)
    expected_features = modules["image_encoder_3d"](*window)
    expected = (expected_text, mask_features(expected_features[0]), *expected_features[1:])
    torch.testing.assert_close((text, *features), expected, rtol=0, atol=1e-4)
    expected_labels, *expected, _ = decoder(
        *expected_features, expected_text, torch.zeros(n_prompts, dtype=torch.int64)
    )
    torch.testing.assert_close([scores, mask_logits, edge_logits], expected, rtol=0, atol=1e-4)
    assert (labels != expected_labels).float().mean() < 0.001
    assert len(labels.unique()) > 1


@torch.no_grad()
@pytest.mark.parametrize("n_prompts", [1, 3])
def test_the_originals_schedule_computes_what_our_2d_networks_compute(ways, n_prompts):
    modules, request = small_setup(ways, TINY_2D, n_slices=1, n_prompts=n_prompts)
    original, decoder = ways.schedule_2d, modules["mask_decoder"]
    prompts = (request["input_ids"], request["attention_mask"])

    text = original.text_2d(modules["text_encoder"], *prompts)
    features = original.image_2d(modules["image_encoder"], decoder.mask_decoder.mask_features, request["pixels"])
    found = original.masks_2d(decoder, features, *text)

    tokens, of_prompts = modules["text_encoder"](*prompts)
    finest, *memories = modules["image_encoder"](request["pixels"])
    expected = decoder(finest, *memories, tokens, prompts[1], of_prompts, request["prompt_groups"])
    expected_features = (decoder.mask_decoder.mask_features(finest), *memories)
    torch.testing.assert_close(features, expected_features, rtol=0, atol=1e-4)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_3d_original_draws_anew_for_every_prompt(ways):
    setup = ways.Setup("cpu", TINY, argparse.Namespace(seed=SEED))
    way, known = ways.original(setup), ways.make_request(setup, n_slices=1, n_prompts=2)

    first, second = (ways.run_parts(setup, way, known)[0] for _ in range(2))

    assert torch.equal(first["text_features"], second["text_features"])
    assert not torch.equal(first["mask_logits"], second["mask_logits"])


def test_schedules_are_compared_part_by_part(tmp_path, exported, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from served import has_bf16

    graphs = [str(exported(variant, "fp32")) for variant in (TINY, TINY_2D)]
    few = "--variant TINY --rounds 2 --prompts 1 3 --threads 1"

    rows = rows_of(tmp_path, "networks.py", *few.split(), "--seed", str(SEED), "--graphs", *graphs)

    exact = ("ours, PyTorch", "ours, ONNX Runtime")
    ways = ("original", *exact, *(["ours, image encoder in bf16"] if has_bf16() else []))
    parts = ("text encoder", "image encoder", "mask decoder", "all")
    requests = (("medimageparse_3d", "1"), ("medimageparse_3d", "3"), ("medimageparse", "1"))
    by_key = {(row["model"], row["prompts"], row["way"], row["part"]): row for row in rows}
    timed = [by_key[*request, way, part] for request in requests for way in ways for part in parts]
    assert all(float(row["median_s"]) >= float(row["best_s"]) > 0 and row["commit"] for row in timed)
    assert all(float(row["share_of_rate"]) > 0 and float(row["fp32_gflops"]) > 0 for row in timed)
    compared = [row for row in timed if row["part"] == "all" and row["way"] != "original"]
    assert all(float(row["label_agreement"]) > (0.999 if row["way"] in exact else 0.9) for row in compared)
    rest = {(row["part"], row["way"]) for row in rows} - {(part, way) for part in parts for way in ways}
    assert rest == {("class names, once per request", "original"), *(("each extra prompt", way) for way in ways)}
    printed = report_of(tmp_path, "schedules")
    drawn = " ".join(xml.etree.ElementTree.parse(tmp_path / "schedules.svg").getroot().itertext())
    assert all(way in printed and way in drawn for way in ways)
    assert "medimageparse_3d, prompts: 3" in drawn
    assert "medimageparse, prompts: 1" in drawn


def test_scaling_varies_one_thing_at_a_time(tmp_path):
    few = "--slices 1 2 --prompts 1 --window-size 2 --threads 1 --instances 2 --requests 1"

    rows = rows_of(tmp_path, "scaling.py", "--graphs", str(DEMO_GRAPHS), *few.split())

    assert [(row["axis"], row["slices"]) for row in rows] == [("base", "1"), ("slices", "2")]
    assert all((row["variant"], row["threads"], row["instances"]) == ("DEMO", "1", "2") for row in rows)
    assert all(row["commit"] and float(row["s_per_slice"]) > 0 for row in rows)
    assert all(float(row["peak_rss_sum_gb"]) > float(row["rss_image_encoder_3d_gb"]) > 0 for row in rows)
    assert "| cpu | slices | 2 | 1 | 2 | 1 | 2 | 1 |" in report_of(tmp_path, "scaling")


def test_stages_add_up_to_the_request(tmp_path):
    few = "--slices 3 --prompts 2 --prompts-2d 2 --window-size 2 --requests 1 --protocols http"

    rows = rows_of(tmp_path, "stages.py", "--graphs", str(DEMO_GRAPHS), str(DEMO_2D_GRAPHS), *few.split())

    expected = {"decode the image", "text encoder", "image encoder", "mask decoder", "encode the result"}
    for variant in ("DEMO", "DEMO_2D"):
        own = [row for row in rows if row["variant"] == variant]
        stages = {row["stage"]: float(row["ms"]) for row in own}
        assert expected < set(stages)
        assert sum(stages.values()) == pytest.approx(float(own[0]["wall_ms"]), rel=0.01)
        assert all(row["commit"] and row["windows_in_flight"] == "1" for row in own)
    printed = report_of(tmp_path, "stages")
    for row in rows:
        assert f"| {row['variant']} | cpu | http | {row['slices']} | 2 | 1 | {row['stage']} |" in printed


@pytest.mark.skipif(not PERF_ANALYZER.exists(), reason="make perf-analyzer fetches it")
def test_perf_analyzer_measures_the_served_model(tmp_path):
    few = "--models medimageparse_3d --slices 1 --prompts 1 --concurrency 1 --requests 1 --stability 10000"

    rows = rows_of(tmp_path, "perf.py", "--variant", "DEMO", "--graphs", str(DEMO_GRAPHS), *few.split())

    ways = [("grpc", "raw"), ("grpc", "base64"), ("http", "raw"), ("http", "base64")]
    assert [(row["protocol"], row["encoding"]) for row in rows] == ways
    assert all(float(row["requests_per_s"]) > 0 and float(row["p95_ms"]) >= float(row["p50_ms"]) > 0 for row in rows)
    assert "| medimageparse_3d | http | base64 | 1 |" in report_of(tmp_path, "perf_analyzer")


def test_a_graph_has_bytes_and_arithmetic_by_kind_of_node(tmp_path):
    one = ["--variant", "DEMO", "--models", "", "--networks", "image_encoder_3d", "--slices", "2", "--engines"]

    rows = rows_of(tmp_path, "roofline.py", *one)

    found = {(row["precision"], row["kind"]): row for row in rows}
    for precision in ("fp16", "fp32"):
        of_kind = [row for key, row in found.items() if key[0] == precision and key[1] != "all"]
        whole = found[precision, "all"]
        for column in ("nodes", "gb", "gflop", "h100_ms", "a100_ms", "here_ms"):
            assert sum(float(row[column]) for row in of_kind) == pytest.approx(float(whole[column]), rel=1e-2)
    single, half = (found[precision, "all"] for precision in ("fp32", "fp16"))
    assert single["gflop"] == half["gflop"]
    assert 0.4 < float(half["engine_mb"]) / float(single["engine_mb"]) < 1  # half the weights, and the same kernels
    assert 0.4 < float(half["gb"]) / float(single["gb"]) < 0.6  # half the bytes a number, and group norm as one node
    printed = report_of(tmp_path, "roofline")
    assert "| image_encoder_3d | fp16 | all |" in printed
    assert "| Gelu |" in printed
