"""A cohort in three shards, while the command and the server are killed: each result is there once, and right."""

import csv
import os
import random
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
from helpers.running_server import serving, triton_of, wait_until
from medimageparse_client.cli import main

N_VOLUMES, N_SHARDS, N_KILLS, SEED = 40, 3, 6, 19
PROMPTS = ("liver", "spleen")


@pytest.fixture
def scans(tmp_path, phantom):
    """Small volumes, no two alike, in two folders."""
    folder = tmp_path / "scans"
    for number in range(N_VOLUMES):
        left, first = number % 8, 18 + number // 8
        voxels = phantom.intensities[16 + left : 176 : 2, 24:168:2, first : first + 2]
        place = folder / f"site{number % 2}" / f"{number:02d}.nii.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, phantom.affine @ np.diag([2, 2, 1, 1])), place)
    return folder


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_kills_of_command_and_server_lose_and_double_nothing(tmp_path, volumes_alone, scans, client, capsys):
    rng, out = random.Random(SEED), tmp_path / "out"
    command = ["cohort", str(scans), "--recursive", "-o", str(out)]
    command += [word for prompt in PROMPTS for word in ("--prompt", prompt)]

    def start(shard, url):
        words = [*command, "--shard", f"{shard}/{N_SHARDS}", "--url", url, "--in-flight", "3"]
        with (tmp_path / f"shard{shard}.log").open("a") as log:
            return subprocess.Popen([sys.executable, "-m", "medimageparse_client", *words], stderr=log)

    def n_done():
        return len(list((out / "results").rglob("*.json")))

    with serving(tmp_path / "log", volumes_alone, "--canary-interval=1") as service:
        triton, _, _ = triton_of(service)
        shards = {shard: start(shard, service.grpc) for shard in range(N_SHARDS)}
        try:
            moments = sorted(rng.sample(range(1, N_VOLUMES - N_SHARDS), N_KILLS))
            server_dies = rng.choice(moments[1:-1])
            for moment in moments:
                wait_until(lambda moment=moment: n_done() >= moment)
                time.sleep(rng.uniform(0, 0.3))
                if moment == server_dies:
                    os.kill(triton, signal.SIGKILL)
                victim = rng.randrange(N_SHARDS)
                shards[victim].kill()
                assert shards[victim].wait() in (-signal.SIGKILL, 0)
                shards[victim] = start(victim, service.grpc)
            codes = {shard: process.wait(timeout=300) for shard, process in shards.items()}
        finally:
            for process in shards.values():
                process.kill()
                process.wait()
        logs = "".join(path.read_text() for path in tmp_path.glob("shard*.log"))
        assert codes == dict.fromkeys(range(N_SHARDS), 0), logs
        assert triton_of(service)[0] != triton  # it did die
    assert str(scans) not in logs  # nor the name of any file
    assert "answers again" in logs
    ids = [row["id"] for shard in range(N_SHARDS) for row in rows(out / f"cases-{shard}-of-{N_SHARDS}.csv")]
    wanted = sorted(f"site{number % 2}/{number:02d}" for number in range(N_VOLUMES))
    assert sorted(ids) == wanted
    results = out / "results"
    found = {str(path.relative_to(results)) for path in results.rglob("[!.]*") if path.is_file()}
    assert found == {f"{name}{ending}" for name in wanted for ending in (".nii.gz", ".json")}
    for name in wanted:
        alone = client.segment(scans / f"{name}.nii.gz", PROMPTS)
        np.testing.assert_array_equal(nib.load(results / f"{name}.nii.gz").dataobj, alone.label_map)
    # with nobody to ask: all is there, and one table has it
    assert main([*command, "--url", "127.0.0.1:1", "--retry-for", "0"]) == 0
    assert f"{N_VOLUMES} of {N_VOLUMES} volumes segmented" in capsys.readouterr().err
    summary = rows(out / "summary.csv")
    assert [(row["id"], row["prompt"]) for row in summary] == [(name, prompt) for name in wanted for prompt in PROMPTS]
    assert len({row["volume_ml"] for row in summary}) > N_VOLUMES  # no two answers are one
    assert rows(out / "failed.csv") == []
