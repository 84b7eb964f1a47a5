"""A shell completes commands, options, choices and file names: argcomplete's protocol, as a shell speaks it."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def complete(tmp_path):
    """What a shell would offer after the typed line."""

    def offer(line: str) -> list[str]:
        told = tmp_path / "told"
        asked = {
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_SHELL": "bash",
            "_ARGCOMPLETE_IFS": "\n",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(told),
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
        }
        command = [sys.executable, "-m", "medimageparse_client"]
        subprocess.run(command, env=os.environ | asked, cwd=tmp_path, check=True)
        return [word.strip() for word in told.read_text().split("\n")]

    return offer


def test_commands(complete):
    assert {"segment", "segment-image"} <= set(complete("medimageparse seg"))


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("medimageparse segment ct.nii.gz liver --intensity ct-l", ["ct-lung"]),
        ("medimageparse segment-image xray.png --image-t", ["--image-type"]),
    ],
)
def test_options_and_choices(complete, line, offered):
    assert complete(line) == offered


def test_names_of_files(complete, tmp_path):
    (tmp_path / "thorax.nii.gz").touch()
    assert complete("medimageparse segment thor") == ["thorax.nii.gz"]
