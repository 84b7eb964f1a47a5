"""docs/evaluate.md names what the command has."""

import argparse

from helpers.pages import PAGES, spans
from medimageparse_client.cli.commands import build_parser
from medimageparse_client.evaluate.cards import NEAR, REPRODUCED
from medimageparse_client.evaluate.layouts import LAYOUTS
from medimageparse_client.evaluate.volume_metrics import TOLERANCE_MM

PAGE = "docs/evaluate.md"


def test_every_option_is_named():
    [subparsers] = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    options = {option for action in subparsers.choices["evaluate"]._actions for option in action.option_strings}
    named = {word for span in spans(PAGE) for word in span.split()}
    assert options - {"-h", "--help"} <= named


def test_every_layout_is_named():
    assert set(LAYOUTS) <= set(spans(PAGE))


def test_the_limits_of_the_verdicts_are_those_of_the_code():
    text = " ".join(PAGES[PAGE].split())
    assert f'at most {REPRODUCED} is "reproduced", of at most {NEAR} "near"' in text
    assert f"within {TOLERANCE_MM:g} mm" in text
