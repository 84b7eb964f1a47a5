"""Two runs are compared case by case."""

import json

import pytest
from medimageparse_client.evaluate.cards import verdict
from medimageparse_client.evaluate.compare import CannotCompare, compare, comparison_report, read_summary

SETTINGS = {"layout": "challenge", "prompt": "first", "seed": 0, "negatives": 0, "networks": {"precision": "fp32"}}


def summary(values, **settings):
    return {"settings": SETTINGS | settings, "cases": {name: {"DSC": value} for name, value in values.items()}}


def test_differences_are_paired_by_case():
    first = summary({f"case {k}": 0.5 + k / 100 for k in range(20)} | {"only here": 0.1})
    second = summary({f"case {k}": 0.51 + k / 100 - 0.3 * (k == 7) for k in range(20)})
    comparison = compare(first, second)
    row = comparison["metrics"]["DSC"]
    assert row["n"] == 20
    assert row["difference"] == pytest.approx(0.01 - 0.3 / 20)
    assert row["interval"][0] < row["difference"] < row["interval"][1]
    assert row["moved"][0]["case"] == "case 7"
    assert row["largest"] == pytest.approx(0.29)
    assert comparison["only_first"] == ["only here"]
    text = comparison_report(comparison, ("a.json", "b.json"))
    assert "| case 7 | 0.5700 | 0.2800 | -0.2900 |" in text
    assert "1 cases are in a.json only." in text


def test_equal_runs_do_not_differ():
    run = summary({"a": 0.5, "b": 0.75})
    row = compare(run, run)["metrics"]["DSC"]
    assert (row["difference"], row["largest"], row["moved"]) == (0, 0, [])


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (summary({"a": 1}, prompt="random"), "another prompt"),
        (summary({"a": 1}, layout="nifti"), "another layout"),
        (summary({"b": 1}), "no case in common"),
    ],
)
def test_runs_of_other_questions_are_not_compared(second, words):
    with pytest.raises(CannotCompare, match=words):
        compare(summary({"a": 1}), second)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"cases": [], "settings": {}}), None])
def test_a_file_that_is_no_summary_is_refused(tmp_path, text):
    path = tmp_path / "summary.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CannotCompare, match=r"not a summary\.json"):
        read_summary(path)


@pytest.mark.parametrize(
    ("difference", "word"),
    [(0, "reproduced"), (0.005, "reproduced"), (-0.00501, "near"), (0.02, "near"), (-0.0201, "differs")],
)
def test_the_size_of_a_difference_decides_the_verdict(difference, word):
    assert verdict(difference) == word
