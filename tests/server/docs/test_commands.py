"""The commands and programs of the pages run as they stand there, against a server that `make serve-demo` starts.

They run in a folder that looks like a checkout. Only the ports are others: any free ones. First there is `make demo`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers.pages import BLOCKS, quoted, section, table
from helpers.places import ROOT
from helpers.running_server import end_at_once
from helpers.served_repository import unbuilt_repository
from medimageparse_demo.demo import IMAGE_PROMPTS, PROMPTS
from medimageparse_demo.image_prompts import CATEGORY_OF
from PIL import Image

PORTS = dict(re.findall(r"^(\w+)_PORT \?= (\d+)", (ROOT / "Makefile").read_text(), re.MULTILINE))
# make hands its own options on to the programs that it starts, these tests among them
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
CLIENT = """#!/bin/sh
case " $* " in
  *" --url "* | " structures "*) exec {client} "$@" ;;
  *) exec {client} "$@" --url {grpc} ;;
esac
"""
RUN = [block for block in BLOCKS if block.is_run and block.language in ("sh", "python")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Links to all that lies here, copies of what is served, and an environment whose programs can be replaced."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if path.name not in (".venv", ".git", "demo_output", "demo", "model_repository"):
            (folder / path.name).symlink_to(path)
    shutil.copytree(ROOT / "demo", folder / "demo")
    unbuilt_repository(folder / "model_repository")
    link_environment(folder / ".venv")
    return folder


def made(checkout, *folders):
    """The environment of a `make` that serves what lies in the checkout."""
    return ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(map(str, (checkout / "demo", *folders)))}


def link_environment(folder):
    (folder / "bin").mkdir(parents=True)
    for path in Path(sys.prefix).iterdir():
        if path.suffix == ".stamp":
            (folder / path.name).touch()  # all is installed
        elif path.name != "bin":
            (folder / path.name).symlink_to(path)
    for path in (Path(sys.prefix) / "bin").iterdir():
        (folder / "bin" / path.name).symlink_to(path)


@pytest.fixture(scope="module")
def demo(checkout, tmp_path_factory):
    """How `make demo` ended where only `make install` was before, and what it wrote: others ask about that."""
    without = tmp_path_factory.mktemp("without")
    for name in ("torch", "onnx", "onnxscript"):
        (without / f"{name}.py").write_text("raise ImportError")
    environment = made(checkout, without)
    ended = subprocess.run(["make", "demo"], cwd=checkout, env=environment, capture_output=True, text=True, timeout=600)
    return ended, sorted(path.name for path in (checkout / "demo_output").glob("*"))


@pytest.fixture(scope="module")
def addresses(checkout):
    """An address that the pages name -> the one here."""
    [command] = {block.code for block in BLOCKS if block.mark == "server"}
    log_file = checkout / "server.log"
    with log_file.open("w") as log:
        server = subprocess.Popen(
            [*command.split(), *(f"{name}_PORT=0" for name in PORTS)],
            cwd=checkout,
            env=made(checkout),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            ready = next((line for line in server.stdout if line.startswith("ready: ")), "")
            assert ready, log_file.read_text()
            told = dict(re.findall(r"(\w+) (?:http://)?(127\.0\.0\.1:\d+)", ready))
            replace_client(checkout, told["grpc"])
            yield {f"localhost:{PORTS[name.upper()]}": told[name] for name in ("gateway", "http", "grpc", "metrics")}
        finally:
            end_at_once(server)


def replace_client(checkout, grpc):
    """The command asks the server here where nobody names another."""
    program = checkout / ".venv" / "bin" / "medimageparse"
    real = program.resolve() if program.is_symlink() else program
    program.unlink()
    program.write_text(CLIENT.format(client=real, grpc=grpc))
    program.chmod(0o755)


@pytest.fixture(scope="module")
def run(checkout, demo, addresses):
    """run(block) -> how it ended; each runs once."""
    programs = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [checkout / ".venv" / "bin" / "python", "-c"]}

    @cache
    def run(block):
        code = block.code
        if code == "make demo\n":
            return demo[0]
        for documented, here in addresses.items():
            code = code.replace(documented, here)
        command = [*programs[block.language], code]
        return subprocess.run(command, cwd=checkout, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)

    return run


@pytest.mark.parametrize("block", RUN, ids=str)
def test_a_block_runs_and_writes_what_it_names(block, checkout, run):
    ended = run(block)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for name in re.findall(r"demo_output/[\w./-]*\w", block.code):
        assert (checkout / name).exists(), name
        if name.endswith(".nii.gz") and name != "demo_output/ct.nii.gz":
            assert set(np.unique(nib.load(checkout / name).dataobj)) > {0}


def test_the_rows_of_the_demo_are_those_of_the_readme(demo):
    printed = demo[0].stdout
    for prompt, in_phantom, found, *numbers in table(section("README.md", "Try it"), "prompt"):
        [row] = re.findall(rf"^{re.escape(prompt)}  +(\S+) +(\S+) +(\S+) +(\S+) +(\S+)$", printed, re.MULTILINE)
        assert row[:2] == (in_phantom, found)
        for shown, told in zip(row[2:], numbers, strict=True):
            assert shown == told or float(shown) == pytest.approx(float(told), rel=0.02, abs=0.02)


def test_the_demo_writes_for_volume_and_image_masks_picture_and_report(demo, checkout):
    ended, written = demo
    assert ended.returncode == 0, ended.stderr
    of_volume = ["ct.nii.gz", "everything.nii.gz", "masks.nii.gz", "masks.png", "report.json"]
    of_image = ["xray.png", "xray_masks.png", "xray_overlay.png", "xray_report.json"]
    assert written == of_volume + of_image
    out = checkout / "demo_output"
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
    lines = demo[0].stdout.splitlines()
    for prompt, structure in PROMPTS.items():
        [line] = (line for line in lines if line.startswith(f"{prompt} "))
        in_phantom, found, *_, dice = line[len(prompt) :].split()
        assert in_phantom == found
        assert (in_phantom == "yes") == (dice != "-")
        assert dice == "-" or float(dice) > 0.6
        assert structure is not None or in_phantom == "no"
    assert any("know no anatomy" in line for line in lines)


def test_the_demo_prints_category_and_dice_of_every_prompt_for_the_image(demo):
    lines = demo[0].stdout.splitlines()
    for prompt, structure in IMAGE_PROMPTS.items():
        [line] = (line for line in lines if line.startswith(f"{prompt} "))
        _, should_be, category, _, dice = re.split(r"\s{2,}", line)
        assert should_be == category == CATEGORY_OF[structure]
        assert float(dice) > 0.75


WHEN_ASKED = {"draws", "instances", "id", "type"}  # options of their own names put these into the report


@pytest.fixture(scope="module")
def reports(checkout, demo, addresses):
    """A model's report of the demo's input."""
    answers = {}
    asked = {"medimageparse_3d": ["segment", "ct.nii.gz"], "medimageparse": ["segment-image", "xray.png"]}
    for model, (command, file) in asked.items():
        report = checkout / f"{model}.json"
        words = [command, checkout / "demo_output" / file, "liver", "-o", "-", "--report", report]
        subprocess.run([checkout / ".venv/bin/medimageparse", *words], stdout=subprocess.DEVNULL, check=True)
        answers[model] = json.loads(report.read_text())
    return answers


@pytest.mark.parametrize(
    ("model", "prompts"), [("medimageparse_3d", "prompt in 3D"), ("medimageparse", "prompt in 2D")]
)
def test_the_page_names_every_field_of_the_report(model, prompts, reports):
    text = section("docs/api.md", "The report")
    fields = [name for cell, _ in table(text, f"field of `{model}`") for name in quoted(cell)]
    assert sorted(fields) == sorted(reports[model])
    of_prompt = [name for cell, _ in table(text, f"field of a {prompts}") for name in quoted(cell)]
    assert sorted(set(of_prompt) - WHEN_ASKED) == sorted(reports[model]["prompts"][0])


def test_there_are_programs_of_both_kinds_to_run():
    assert {block.language for block in RUN} == {"sh", "python"}
