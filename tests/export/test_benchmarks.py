"""The benchmark scripts run on small models and write rows with their conditions; nothing timed is asserted."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO_GRAPHS = ROOT / "export" / "medimageparse_demo" / "weights"
SMALL_VOLUME = ["--slices", "2", "--prompts", "1", "--requests", "1", "--graphs", str(DEMO_GRAPHS)]


def rows_of(folder: Path, script: str, *arguments: str) -> list[dict[str, str]]:
    results = folder / "results.csv"
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--work", str(folder), "--results", str(results)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *arguments], env=environment, check=True, timeout=300)
    with results.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("published_size_cpu.py", ["--window-size", "2"]), ("gpu_served.py", ["--device", "cpu", "--window-sizes", "2"])],
)
def test_a_served_volume_makes_a_row(tmp_path, script, arguments):
    (row,) = rows_of(tmp_path, script, *SMALL_VOLUME, *arguments)

    assert row["commit"]
    assert row["cpu"]
    assert row["onnxruntime"]
    assert (row["variant"], row["precision"], row["prompts"], row["window_size"]) == ("DEMO", "fp32", "1", "2")
    assert float(row["peak_rss_sum_gb"]) > float(row["rss_image_encoder_3d_gb"]) > 0
    assert all(float(row[f"{network}_3d_ms"]) > 0 for network in ("text_encoder", "image_encoder", "mask_decoder"))


def test_every_network_and_technique_makes_a_row(tmp_path):
    arguments = "--device cpu --variant TINY --slices 1 --prompts 1 --repeats 2 --techniques eager-fp32 typed-fp16"

    rows = rows_of(tmp_path, "gpu_networks.py", *arguments.split())

    networks = ["text_encoder_3d", "image_encoder_3d", "mask_decoder_3d", "all three"]
    assert [(row["technique"], row["network"]) for row in rows] == [
        (technique, network) for technique in ("eager-fp32", "typed-fp16") for network in networks
    ]
    assert all(float(row["relative_l2"]) == 0 for row in rows[:4])
    assert all(0 < float(row["relative_l2"]) < 0.1 for row in rows[4:])
    assert all(row["commit"] and row["torch"] for row in rows)
