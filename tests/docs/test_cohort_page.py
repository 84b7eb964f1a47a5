"""docs/cohort.md names the columns, options and numbers that there are."""

import re

from helpers.pages import quoted, section, spans, table
from medimageparse_client.cli.commands import build_parser
from medimageparse_client.cohort import manifest, tables
from medimageparse_client.results.writers import ENDINGS

from .test_client_page import PAGE as CLIENT_PAGE
from .test_client_page import commands

PAGE = "docs/cohort.md"


def test_every_option_is_named_here_or_on_the_page_of_the_other_commands():
    named = {word for page in (PAGE, CLIENT_PAGE) for span in spans(page) for word in span.split()}
    options = {option for action in commands()["cohort"]._actions for option in action.option_strings}
    assert options - {"-h", "--help"} <= named


def test_the_columns_of_a_manifest_are_those_that_are_read():
    named = [name for cell, _ in table(section(PAGE, "The volumes"), "column") for name in quoted(cell)]
    assert sorted(named) == sorted([manifest.FILE, manifest.ID, *manifest.ASKED])


def test_the_tables_have_the_columns_that_the_page_names():
    text = section(PAGE, "What comes out")
    told = {name: quoted(rest) for name, rest in re.findall(r"^\* `(\w+)`: (.*(?:\n  .*)*)", text, re.MULTILINE)}
    made = {"summary": tables.SUMMARY, "cases": tables.CASES, "failed": tables.FAILED}
    assert {name: ["id", "file", *columns] for name, columns in told.items()} == {n: list(c) for n, c in made.items()}


def test_every_format_is_named():
    assert {ending[1:] for ending in ENDINGS} - {"nii.gz"} <= set(spans(PAGE))


def test_the_defaults_are_those_of_the_command_line():
    args = build_parser().parse_args(["cohort", "scans.csv", "-o", "out"])
    text = " ".join(section(PAGE, "Several servers").split())
    assert re.search(rf"up to `--in-flight` \({args.in_flight}\)", text)
    assert f"`--retry-for` seconds ({args.retry_for:g})" in text
    assert f"`--progress-every` seconds ({args.progress_every:g})" in text
