"""The pages are readable, and what they name is there."""

import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec

import pytest
from helpers.pages import BLOCKS, PAGES, ROOMS, anchors, links, spans
from helpers.places import ROOT
from medimageparse_client.cli.commands import build_parser

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"\$\(([A-Z_]+)\)", MAKEFILE))
SOURCE_ENDINGS = (".py", ".sh", ".yaml", ".conf", ".toml", "Dockerfile", "Makefile")
BUILT = ("model.plan",)  # no file of the checkout
FOREIGN_FLAGS = {  # of docker, and of tritonserver
    "--gpus", "--rm", "--shm-size", "--cuda-memory-pool-byte-size", "--log-verbose", "--log-format",
}  # fmt: skip


@cache
def files():
    inside = (path for room in ROOMS for path in (ROOT / room).rglob("*"))
    return [str(path.relative_to(ROOT)) for path in (*ROOT.glob("*"), *inside) if path.is_file()]


@cache
def sources():
    return "\n".join((ROOT / file).read_text() for file in files() if file.endswith(SOURCE_ENDINGS))


def named(pattern):
    """(page, what the pattern finds in the pages' backticks)."""
    return sorted({(page, match) for page in PAGES for span in spans(page) for match in re.findall(pattern, span)})


@pytest.mark.parametrize("page", PAGES)
def test_no_line_is_longer_than_120_characters(page):
    long = [line for line in PAGES[page].splitlines() if len(line) > 120]
    if page == "SECURITY.md":  # its threat model is one table
        long = [line for line in long if not line.startswith("|")]
    assert long == []


def test_the_readme_is_short():
    assert len(PAGES["README.md"].split()) <= 900


@pytest.mark.parametrize("page", PAGES)
def test_a_link_leads_to_a_file_and_a_heading(page):
    for path, anchor in links(page):
        assert path.exists(), path
        if anchor:
            assert anchor in anchors(str(path.resolve().relative_to(ROOT)))


def test_the_readme_leads_to_every_page():
    linked = {str(path.resolve().relative_to(ROOT)) for path, _ in links("README.md")}
    assert {page for page in PAGES if page.startswith("docs/")} <= linked


# names of data files are a user's, unless they begin with a folder of this checkout
OURS = rf"(?:{'|'.join(ROOMS)})/(?:[\w.-]+/)*"


@pytest.mark.parametrize(("page", "file"), named(rf"^(?:[\w./-]+\.(?:py|sh|pbtxt|conf|plan|lock)|{OURS}[\w-]+\.\w+)$"))
def test_a_file_that_a_page_names_is_there(page, file):
    assert file in BUILT or any(f"/{path}".endswith(f"/{file}") for path in files())


@pytest.mark.parametrize(("page", "folder"), named(f"^{OURS}$"))
def test_a_folder_that_a_page_names_is_there(page, folder):
    made = ("benchmarks/work/", "benchmarks/results/VARIANT/")
    assert folder in made or any(f"/{path}".startswith(f"/{folder}") for path in files())


@pytest.mark.parametrize(("page", "target"), named(r"^make ([a-z-]+)"))
def test_a_make_target_that_a_page_names_is_there(page, target):
    assert target in TARGETS


@pytest.mark.parametrize(("page", "flag"), named(r"(?<![\w-])(--[a-z][a-z0-9-]*[a-z0-9])"))
def test_an_option_that_a_page_names_is_there(page, flag):
    assert flag in FOREIGN_FLAGS or re.search(rf"[\"'( ]{flag}[\"'= ]", sources())


@pytest.mark.parametrize(("page", "name"), named(r"\b(MEDIMAGEPARSE_[A-Z_]+|nv_[a-z_]+)\b"))
def test_a_variable_of_the_environment_that_a_page_names_is_read(page, name):
    assert name.startswith("nv_") or f'"{name}"' in sources()


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "sh"], ids=str)
def test_a_block_of_commands_is_marked_or_run_and_asks_for_what_there_is(block):
    assert block.mark in ("", "server") or re.fullmatch(r"skip: \S.*\S", block.mark)
    assert subprocess.run(["bash", "-n"], input=block.code, text=True, check=False).returncode == 0
    for command in block.code.replace("\\\n", " ").splitlines():
        check_command(command.split())


def check_command(words):
    """Targets, variables, programs, modules and options of one line."""
    for i, word in enumerate(words):
        if word == "make":
            target, *settings = (after.strip('"') for after in words[i + 1 :])
            assert target in TARGETS
            assert {name for name, is_set, _ in (text.partition("=") for text in settings) if is_set} <= VARIABLES
        if word.endswith("medimageparse") and i == 0:
            build_parser().parse_known_args([text.strip('"') for text in words[1:] if text != ">"])
        if word == ".venv/bin/python" and words[i + 1] == "-m":
            assert find_spec(words[i + 2])
        elif word == ".venv/bin/python":
            script = (ROOT / words[i + 1]).read_text() + (ROOT / "benchmarks" / "recording.py").read_text()
            assert {text for text in words[i + 2 :] if text.startswith("--") and text != "--help"} <= set(
                re.findall(r'"(--[a-z-]+)"', script)
            )


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_a_block_of_python_compiles(block):
    compile(block.code, str(block), "exec")


def test_this_python_is_one_that_the_readme_names():
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in PAGES["README.md"]
