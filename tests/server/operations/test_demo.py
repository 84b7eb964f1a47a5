"""`make demo`: runs without torch and writes its eight files."""

import json
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from medimageparse_demo.demo import IMAGE_PROMPTS, PROMPTS
from medimageparse_demo.image_prompts import CATEGORY_OF
from medimageparse_demo.repository import WEIGHTS
from PIL import Image

WITHOUT_TORCH = """
import runpy, sys
sys.modules |= dict.fromkeys(("torch", "onnx", "onnxscript"))  # importing them fails
runpy.run_module("medimageparse_demo.demo", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory, weights):
    if weights != WEIGHTS:
        pytest.skip("make demo serves the committed graphs; MEDIMAGEPARSE_DEMO_WEIGHTS names others")
    out = tmp_path_factory.mktemp("demo") / "output"
    command = [sys.executable, "-c", WITHOUT_TORCH, "--out", out]
    return out, subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_the_demo_writes_for_volume_and_image_masks_picture_and_report(demo):
    out, run = demo
    assert run.returncode == 0, run.stderr
    of_volume = ["ct.nii.gz", "everything.nii.gz", "masks.nii.gz", "masks.png", "report.json"]
    of_image = ["xray.png", "xray_masks.png", "xray_overlay.png", "xray_report.json"]
    assert sorted(path.name for path in out.iterdir()) == of_volume + of_image
    with Image.open(out / "xray.png") as image, Image.open(out / "xray_masks.png") as label_map:
        assert image.size == label_map.size
        assert set(np.unique(label_map)) == set(range(len(IMAGE_PROMPTS) + 1))
    report = json.loads((out / "xray_report.json").read_text())
    assert [entry["text"] for entry in report["prompts"]] == list(IMAGE_PROMPTS)
    volume, masks = nib.load(out / "ct.nii.gz"), nib.load(out / "masks.nii.gz")
    assert masks.shape == volume.shape
    assert np.array_equal(masks.affine, volume.affine)
    with Image.open(out / "masks.png") as picture:
        assert min(picture.size) > 300
    report = json.loads((out / "report.json").read_text())
    assert [entry["text"] for entry in report["prompts"]] == list(PROMPTS)


def test_the_demo_prints_a_line_for_every_prompt(demo):
    lines = demo[1].stdout.splitlines()
    for prompt, structure in PROMPTS.items():
        [line] = (line for line in lines if line.startswith(f"{prompt} "))
        in_phantom, found, *_, dice = line[len(prompt) :].split()
        assert in_phantom == found
        assert (in_phantom == "yes") == (dice != "-")
        assert dice == "-" or float(dice) > 0.6
        assert structure is not None or in_phantom == "no"
    assert any("know no anatomy" in line for line in lines)


def test_the_demo_prints_category_and_dice_of_every_prompt_for_the_image(demo):
    lines = demo[1].stdout.splitlines()
    for prompt, structure in IMAGE_PROMPTS.items():
        [line] = (line for line in lines if line.startswith(f"{prompt} "))
        _, should_be, category, _, dice = re.split(r"\s{2,}", line)
        assert should_be == category == CATEGORY_OF[structure]
        assert float(dice) > 0.75
