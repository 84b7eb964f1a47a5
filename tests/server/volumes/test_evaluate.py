"""`medimageparse evaluate` on a real server: its scores are those of the client's own answers, in every layout."""

import gzip
import json
import re
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
from helpers.evaluation import evaluate
from medimageparse_client.evaluate.volume_layouts import AMOS_LABELS, amos_prompts

N_CASES = 3
# labels of AMOS22 that the phantom has
ORGANS = {"spleen": 1, "right kidney": 2, "left kidney": 3, "gallbladder": 4, "liver": 6, "stomach": 7, "aorta": 8}


@pytest.fixture(scope="module")
def slabs(phantom):
    """Three small volumes of one phantom: intensities and labels [x,y,z], and their affine."""
    cut = [(slice(8, 184, 2), slice(24, 168, 2), slice(18 + 2 * k, 22 + 2 * k)) for k in range(N_CASES)]
    affine = phantom.affine @ np.diag([2, 2, 1, 1])
    return [(phantom.intensities[box], phantom.labels[box], affine) for box in cut]


@pytest.fixture(scope="module")
def names(phantom):
    """Structure -> label in the phantom, of those that are in it."""
    return dict(phantom.structures)


def write_nifti(folder, slabs, names):
    for place in ("images", "labels"):
        (folder / place).mkdir(parents=True)
    for k, (intensities, labels, affine) in enumerate(slabs):
        nib.save(nib.Nifti1Image(intensities, affine), folder / "images" / f"CT_{k}.nii.gz")
        nib.save(nib.Nifti1Image(labels.astype(np.uint8), affine), folder / "labels" / f"CT_{k}.nii.gz")
    prompts = {str(label): name for name, label in names.items()} | {"instance_label": 0}
    (folder / "prompts.json").write_text(json.dumps(prompts))
    return folder / "images"


def write_challenge(folder, slabs, names):
    for place in ("imgs", "gts"):
        (folder / place).mkdir(parents=True)
    for k, (intensities, labels, affine) in enumerate(slabs):
        greys = ((np.clip(intensities, -160, 240) + 160) / 400 * 255).astype(np.uint8)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        prompts = {str(label): name for name, label in names.items()} | {"instance_label": 0}
        prompts = np.array(prompts, dtype=object)
        np.savez(folder / "imgs" / f"CT_phantom_{k}.npz", imgs=greys.T, spacing=spacing, text_prompts=prompts)
        np.savez(folder / "gts" / f"CT_phantom_{k}.npz", gts=labels.T.astype(np.uint8), spacing=spacing)
    return folder / "imgs"


def write_amos(folder, slabs, names):
    for place in ("imagesVa", "labelsVa"):
        (folder / place).mkdir(parents=True)
    for k, (intensities, labels, affine) in enumerate(slabs):
        organs = np.zeros(labels.shape, np.uint8)
        for name, label in names.items():
            organs[labels == label] = ORGANS.get(name, 0)
        nib.save(nib.Nifti1Image(intensities, affine), folder / "imagesVa" / f"amos_000{k}.nii.gz")
        nib.save(nib.Nifti1Image(organs, affine), folder / "labelsVa" / f"amos_000{k}.nii.gz")
    return folder / "imagesVa"


WRITERS = {"nifti": write_nifti, "challenge": write_challenge, "amos22": write_amos}


def asked_by_hand(client, layout, path, folder, names):
    """Label map [x,y,z], truth, and label -> number in the label map, of the same question without evaluate."""
    if layout == "challenge":
        with np.load(path) as file:
            greys, spacing = file["imgs"].T, file["spacing"]
        with np.load(folder / "gts" / path.name) as file:
            truth = file["gts"].T
        options = {"affine": np.diag([*spacing, 1]), "orientation": "stored", "intensity": "none"}
        prompts = {label: name for name, label in sorted(names.items(), key=lambda item: item[1])}
        return client.segment(greys, list(prompts.values()), **options).label_map, truth, list(prompts)
    truth_folder = folder / ("labelsVa" if layout == "amos22" else "labels")
    truth = np.asanyarray(nib.load(truth_folder / path.name).dataobj)
    if layout == "amos22":
        answer = client.segment(path, list(amos_prompts("CT").values()), intensity="ct-soft-tissue")
        return answer.label_map, truth, list(AMOS_LABELS)
    prompts = {label: name for name, label in sorted(names.items(), key=lambda item: item[1])}
    return client.segment(path, list(prompts.values())).label_map, truth, list(prompts)


@pytest.mark.parametrize("layout", WRITERS)
def test_dice_is_that_of_the_clients_answer(client, server, slabs, names, tmp_path, layout):
    images = WRITERS[layout](tmp_path / "data", slabs, names)
    summary = evaluate(server.grpc_url, images, tmp_path / "out", "--no-surface", "--worst", 1)
    records = [json.loads(line) for line in (tmp_path / "out" / "cases.jsonl").read_text().splitlines()[1:]]
    assert summary["n_answered"] == len(records) == N_CASES
    found = 0
    for path, record in zip(sorted(images.iterdir()), sorted(records, key=lambda r: r["name"]), strict=True):
        label_map, truth, labels = asked_by_hand(client, layout, path, tmp_path / "data", names)
        for row in record["rows"]:
            mask = label_map == 1 + labels.index(row["label"])
            assert row["predicted"] == mask.sum()
            assert row["common"] == (mask & (truth == row["label"])).sum()
            found += row["common"] > 0
    assert found >= 2 * N_CASES
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"report.md", "cases.csv", "labels.csv", "worst"}
    assert len(list((tmp_path / "out" / "worst").glob("*.png"))) == 1


def test_slices_are_counted_on_the_truth_however_the_file_is_stored(server, slabs, names, tmp_path):
    turned = []
    for intensities, labels, affine in slabs:
        flip = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, intensities.shape[2] - 1], [0, 0, 0, 1]])
        turned.append((intensities[:, :, ::-1], labels[:, :, ::-1], flip))
    tables = []
    for name, volumes in (("stored", slabs), ("turned", turned)):
        images = write_nifti(tmp_path / name, volumes, names)
        tables.append(evaluate(server.grpc_url, images, tmp_path / f"{name}_out", "--worst", 0)["tables"])
    assert tables[0]["Existence"] == tables[1]["Existence"]
    assert tables[0]["Structures"] == tables[1]["Structures"]
    assert tables[0]["Existence"]["CT, slices"]["accuracy"]["value"] > 0.9


def test_saved_predictions_score_the_same_without_a_server(server, slabs, names, tmp_path):
    images = write_challenge(tmp_path / "data", slabs, names)
    saved = tmp_path / "saved"
    asked = evaluate(server.grpc_url, images, tmp_path / "asked", "--save-predictions", saved, "--worst", 0)
    scored = evaluate("nobody:1", images, tmp_path / "scored", "--predictions", saved)
    assert scored["cases"] == asked["cases"]


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(server, slabs, names, tmp_path):
    images = write_challenge(tmp_path / "data", slabs, names)
    whole = evaluate(server.grpc_url, images, tmp_path / "whole", "--worst", 0)
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "medimageparse_client", "evaluate", images, "-o", out, "--workers", "1"]
    for n_done in range(1, N_CASES):
        process = subprocess.Popen([*command, "--url", server.grpc_url], stderr=subprocess.PIPE)
        while n_lines(out / "cases.jsonl") < 1 + n_done and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.communicate()
    resumed = evaluate(server.grpc_url, images, out, "--worst", 0)
    assert resumed == whole


def n_lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_one_bad_case_is_told_and_the_exit_code_says_so(server, slabs, names, tmp_path, capsys):
    from medimageparse_client.cli import main

    images = write_nifti(tmp_path / "data", slabs, names)
    (images / "CT_1.nii.gz").write_bytes(gzip.compress(b"not a volume"))
    assert main(["evaluate", str(images), "-o", str(tmp_path / "out"), "--url", server.grpc_url]) == 1
    out, err = capsys.readouterr()
    assert "2 of 3 cases answered, 1 failed" in out
    assert re.search(r"medimageparse: CT_1: .*NIfTI", err)
    assert "Traceback" not in err


def test_other_networks_in_the_same_folder_are_refused(server, slabs, names, tmp_path, capsys):
    from medimageparse_client.cli import main

    images = write_nifti(tmp_path / "data", slabs[:1], names)
    out = tmp_path / "out"
    evaluate(server.grpc_url, images, out, "--worst", 0)
    lines = (out / "cases.jsonl").read_text()
    (out / "cases.jsonl").write_text(lines.replace('"precision": "fp32"', '"precision": "fp16"'))
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(images), "-o", str(out), "--url", server.grpc_url])
    assert ended.value.code == 2
    assert "--restart" in capsys.readouterr().err
