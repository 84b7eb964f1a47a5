"""docs/client.md names the options, exit codes, errors and windows that there are."""

import argparse
import re

import medimageparse_client
from helpers.pages import quoted, section, spans, table
from medimageparse_client.cli import console
from medimageparse_client.cli.commands import build_parser
from medimageparse_client.formats.dicom_slice import WINDOWS
from medimageparse_demo.vocabulary import KNOWN

PAGE = "docs/client.md"


def commands():
    parser = build_parser()
    [subparsers] = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return subparsers.choices


def test_every_option_is_named():
    named = {word for span in spans(PAGE) for word in span.split()}
    for name, command in commands().items():
        if name in ("cohort", "evaluate"):  # have pages of their own
            continue
        options = {option for action in command._actions for option in action.option_strings}
        assert options - {"-h", "--help"} <= named, name


def test_the_defaults_are_those_of_the_command_line():
    actions = {option: action for action in commands()["segment"]._actions for option in action.option_strings}
    for options, _, told in table(section(PAGE, "Command line"), "option"):
        for option in quoted(options):
            action = actions[option]
            if action.required:
                assert told == "required"
            elif action.default in (None, False, []):
                assert told in ("none", "off", *quoted(told)[:0]) or option == "--protocol"
            else:
                assert (
                    told.strip("`") == f"{action.default:g}"
                    if isinstance(action.default, float)
                    else str(action.default)
                )


def test_every_exit_code_is_named():
    told = {int(code) for code, _ in table(section(PAGE, "Command line"), "exit code")}
    assert told == {console.DONE, console.SOME_FAILED, 2, console.INTERRUPTED, *dict(console.EXIT_CODES).values()}


def test_the_errors_are_named():
    public = {name for name in medimageparse_client.__all__ if isinstance(getattr(medimageparse_client, name), type)}
    errors = {name for name in public if issubclass(getattr(medimageparse_client, name), Exception)}
    assert errors <= set(spans(PAGE))


def test_the_windows_are_those_of_the_client():
    told = {
        quoted(name)[0]: tuple(float(bound) for bound in bounds.split(","))
        for name, bounds in table(section(PAGE, "DICOM slices"), "`--window`")
    }
    assert told == WINDOWS


def test_the_page_lists_what_the_demo_knows():
    told = ", ".join(cell for _, cell in table(section(PAGE, "What the models know"), "kind of image"))
    for structures in KNOWN.values():
        for name in (name for names in structures.values() for name in names):
            assert re.search(rf"\b{name}\b", told), name
