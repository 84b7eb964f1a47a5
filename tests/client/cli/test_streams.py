"""The command as a process: whatever its standard streams are, no traceback and the right exit code."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import medimageparse_client
import pytest
from helpers.places import ROOT

# stands in for a server, in the process of the command; nibabel would import pydicom, which takes as long as the rest
PROGRAM = """
import sys
sys.modules["pydicom"] = None
from helpers.fake_server import FakeTriton
from medimageparse_client import connection
connection.GrpcServer = FakeTriton
from medimageparse_client.cli import main
sys.exit(main())
"""
pytestmark = pytest.mark.slow  # some thirty processes
KANJI = "\u809d\u81d3"


@pytest.fixture
def shell(tmp_path, volume_file):
    """shell("$COMMAND | head"): bash's own exit code, and what came on its stdout and stderr together."""
    command = f"{sys.executable} -c '{PROGRAM}'"
    folders = os.pathsep.join([str(Path(medimageparse_client.__file__).parents[1]), str(ROOT / "tests")])

    def shell(line, **variables):
        environment = {**os.environ, "COMMAND": command, "PYTHONPATH": folders, **variables}
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line.replace("$COMMAND", command)],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        assert b"Traceback" not in done.stdout
        assert b"Exception ignored" not in done.stdout
        return done.returncode, done.stdout

    return shell


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "ascii:strict", "latin-1", "utf-16", "shift-jis"])
def test_letters_that_the_terminal_does_not_have(shell, tmp_path, encoding):
    code, said = shell(f"$COMMAND segment ct.nii.gz {KANJI} -o {KANJI}.nii.gz", PYTHONIOENCODING=encoding)
    assert code == 0
    assert (tmp_path / f"{KANJI}.nii.gz").exists()
    codec = encoding.partition(":")[0]
    shown = KANJI if codec in ("utf-16", "shift-jis") else r"\u809d\u81d3"
    assert shown in said.decode(codec)


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_the_plainest_locale(shell, locale):
    code, said = shell(
        f"$COMMAND segment ct.nii.gz {KANJI} -o masks.nii.gz; $COMMAND segment gone{KANJI}.nii x -o m.nii", **locale
    )
    assert code == 5
    assert b"label" in said
    assert b"No such file" in said


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        ("$COMMAND segment ct.nii.gz liver -o masks.nii.gz >&-", 0, b""),
        ("$COMMAND segment ct.nii.gz liver -o masks.nii.gz >&- 2>&-", 0, b""),
        ("$COMMAND segment ct.nii.gz liver -o masks.nii.gz >&- 2>&- <&-", 0, b""),
        ("$COMMAND segment ct.nii.gz liver -o masks.nii.gz | true", 0, b""),
        ("$COMMAND segment ct.nii.gz liver -o masks.nii.gz 2>&1 | true", 0, b""),
        ("$COMMAND segment --help | true", 0, b""),
        ("$COMMAND segment --help > /dev/full", 0, b""),
        ("$COMMAND health | true", 0, b""),
        ("$COMMAND segment 2>&-", 2, b""),
        (
            "$COMMAND segment ct.nii.gz liver -o masks.nii.gz > /dev/full",
            5,
            b"standard output: No space left on device",
        ),
        ("$COMMAND segment ct.nii.gz liver -o masks.nii.gz 2> /dev/full", 0, b"label"),
        ("$COMMAND segment ct.nii.gz liver -o - > /dev/full", 5, b"standard output: No space left on device"),
        ("$COMMAND segment ct.nii.gz liver -o - | true", 5, b"standard output: Broken pipe"),
        ("$COMMAND segment ct.nii.gz liver -o /dev/full", 5, b"/dev/full: No space left on device"),
        ("$COMMAND segment - liver -o masks.nii.gz <&-", 5, b"standard input: nothing came from it"),
        ("$COMMAND segment - liver -o masks.nii.gz < /dev/null", 5, b"standard input: nothing came from it"),
        ("ulimit -f 0; $COMMAND segment ct.nii.gz liver -o masks.nii.gz", 5, b"masks.nii.gz: "),
        ("cat ct.nii.gz | $COMMAND segment - liver -o - 2> /dev/null | gzip -t", 0, b""),
        ("$COMMAND segment <(cat ct.nii.gz) liver -o >(cat > /dev/null)", 0, b"label"),
    ],
)
def test_streams(shell, line, code, sentence):
    got, said = shell(line)
    assert got == code
    assert sentence in said


def test_a_result_does_not_get_into_a_closed_stream_nor_text_into_a_result(shell, tmp_path):
    line = "$COMMAND segment ct.nii.gz liver -o masks.nii.gz"
    assert shell(line)[0] == 0
    whole = gzip.decompress((tmp_path / "masks.nii.gz").read_bytes())
    assert shell(f"{line} --force >&- 2>&- <&-")[0] == 0
    assert gzip.decompress((tmp_path / "masks.nii.gz").read_bytes()) == whole


def test_a_name_that_is_no_text(shell, tmp_path):
    line = r"cp ct.nii.gz $'b\xe9.nii.gz' && $COMMAND segment $'b\xe9.nii.gz' liver -o $'m\xe9.nii.gz' --report - && "
    code, said = shell(line + r"$COMMAND segment $'gone\xe9.nii.gz' liver -o masks.nii.gz")
    assert code == 5
    assert said.endswith(b"medimageparse: gone\\udce9.nii.gz: No such file or directory\n")
    assert (tmp_path / "m\udce9.nii.gz").exists()


def test_the_version_comes_without_a_server(shell):
    code, said = shell("$COMMAND --version")
    assert code == 0
    assert said.startswith(b"medimageparse ")
