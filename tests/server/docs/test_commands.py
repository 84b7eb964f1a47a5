"""The commands and programs of the pages run as they stand there, against a server that `make serve-demo` starts.

They run in a folder that looks like a checkout. Only the ports are others: any free ones.
"""

import json
import os
import re
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers.pages import BLOCKS, quoted, section, table
from helpers.places import ROOT
from medimageparse_demo.demo import IMAGE_SEED, SEED
from medimageparse_demo.images import make_image
from medimageparse_demo.phantoms import make_phantom
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
    """Links to all that lies here, an environment whose programs can be replaced, and what `make demo` draws."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if path.name not in (".venv", ".git", "demo_output"):
            (folder / path.name).symlink_to(path)
    link_environment(folder / ".venv")
    drawn = folder / "demo_output"
    drawn.mkdir()
    phantom = make_phantom(SEED, "CT")
    nib.Nifti1Image(phantom.intensities, phantom.affine).to_filename(drawn / "ct.nii.gz")
    Image.fromarray(make_image(IMAGE_SEED, "X-Ray-Chest").pixels).save(drawn / "xray.png")
    return folder


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
def addresses(checkout):
    """An address that the pages name -> the one here."""
    [command] = {block.code for block in BLOCKS if block.mark == "server"}
    log_file = checkout / "server.log"
    with log_file.open("w") as log:
        server = subprocess.Popen(
            [*command.split(), *(f"{name}_PORT=0" for name in PORTS)],
            cwd=checkout,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            ready = next((line for line in server.stdout if line.startswith("ready: ")), "")
            assert ready, log_file.read_text()
            told = dict(re.findall(r"(\w+) (?:http://)?(127\.0\.0\.1:\d+)", ready))
            replace_client(checkout, told["grpc"])
            yield {f"localhost:{PORTS[name.upper()]}": told[name] for name in ("gateway", "http", "grpc", "metrics")}
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.communicate(timeout=100)


def replace_client(checkout, grpc):
    """The command asks the server here where nobody names another."""
    program = checkout / ".venv" / "bin" / "medimageparse"
    real = program.resolve() if program.is_symlink() else program
    program.unlink()
    program.write_text(CLIENT.format(client=real, grpc=grpc))
    program.chmod(0o755)


@pytest.fixture(scope="module")
def run(checkout, addresses):
    """run(block) -> how it ended; each runs once."""
    programs = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [checkout / ".venv" / "bin" / "python", "-c"]}

    @cache
    def run(block):
        code = block.code
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


def test_the_rows_of_the_demo_are_those_of_the_readme(run):
    [block] = (block for block in RUN if block.code == "make demo\n")
    printed = run(block).stdout
    for prompt, in_phantom, found, *numbers in table(section("README.md", "Try it"), "prompt"):
        [row] = re.findall(rf"^{re.escape(prompt)}  +(\S+) +(\S+) +(\S+) +(\S+) +(\S+)$", printed, re.MULTILINE)
        assert row[:2] == (in_phantom, found)
        for shown, told in zip(row[2:], numbers, strict=True):
            assert shown == told or float(shown) == pytest.approx(float(told), rel=0.02, abs=0.02)


WHEN_ASKED = {"draws", "instances", "id", "type"}  # options of their own names put these into the report


@pytest.fixture(scope="module")
def reports(checkout, addresses):
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
