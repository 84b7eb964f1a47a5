"""The command `evaluate` where no server is needed."""

import json
import sys

import pytest
from helpers.evaluated_cases import write_biomedparse, write_challenge
from medimageparse_client.cli import main


def ended(argv, capsys):
    """The exit code and what was said on standard error."""
    try:
        code = main([str(word) for word in argv])
    except SystemExit as error:
        code = error.code
    return code, capsys.readouterr().err


def predictions_of(tmp_path):
    """Challenge cases, and the truth as predictions."""
    images = write_challenge(tmp_path / "data")
    from numpy import load, savez

    saved = tmp_path / "predicted"
    saved.mkdir()
    for path in (tmp_path / "data" / "gts").iterdir():
        with load(path) as file:
            savez(saved / path.name, segs=file["gts"])
    return images, saved


def test_predictions_are_scored_without_a_server_and_all_files_are_written(tmp_path, capsys):
    images, saved = predictions_of(tmp_path)
    out = tmp_path / "out"
    assert ended(["evaluate", images, "-o", out, "--predictions", saved], capsys) == (
        0,
        "medimageparse: layout challenge: 3 of 3 cases\n",
    )
    assert {path.name for path in out.iterdir()} == {
        *("summary.json", "report.md", "cases.csv", "labels.csv", "cases.jsonl", "structures.png", "worst"),
    }
    assert json.loads((out / "summary.json").read_text())["tables"]["Modalities"]["CT"]["DSC"]["value"] == 1
    assert len(list((out / "worst").iterdir())) == 3


def test_a_part_of_the_cases_is_said_in_the_report(tmp_path, capsys):
    images, saved = predictions_of(tmp_path)
    code, _ = ended(["evaluate", images, "-o", tmp_path / "out", "--predictions", saved, "--limit", 1], capsys)
    assert code == 0
    assert "Not covered: 2 of 3 cases." in (tmp_path / "out" / "report.md").read_text()


def test_two_summaries_are_compared(tmp_path, capsys):
    images, saved = predictions_of(tmp_path)
    for name in ("a", "b"):
        ended(["evaluate", images, "-o", tmp_path / name, "--predictions", saved, "--worst", 0], capsys)
    summaries = [tmp_path / name / "summary.json" for name in ("a", "b")]
    assert main(["evaluate", "--compare", *map(str, summaries), "-o", str(tmp_path / "c")]) == 0
    assert "| DSC | 3 | 1.0000 | 1.0000 | +0.0000 |" in capsys.readouterr().out
    assert (tmp_path / "c" / "comparison.md").exists()
    (tmp_path / "c/comparison.json").unlink()
    (tmp_path / "c/comparison.md").write_text("mine")
    command = ["evaluate", "--compare", *summaries, "-o", tmp_path / "c"]
    code, err = ended(command, capsys)
    assert (code, "comparison.md exists already; --force writes over it" in err) == (2, True)
    assert (tmp_path / "c/comparison.md").read_text() == "mine"
    assert ended([*command, "--force"], capsys)[0] == 0
    assert (tmp_path / "c/comparison.md").read_text() != "mine"


@pytest.mark.parametrize("name", ["out/summary.json", "out/report.md", "out/worst/mine.png", "again/{case}"])
def test_what_is_not_of_this_run_is_never_written_over(name, tmp_path, capsys):
    images, saved = predictions_of(tmp_path)
    place = tmp_path / name.format(case=next(saved.iterdir()).name)
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    out, again = tmp_path / "out", tmp_path / "again"
    command = ["evaluate", images, "-o", out, "--predictions", saved, "--save-predictions", again]
    command += ["--worst", int("worst" in name)]  # pictures take seconds
    code, err = ended(command, capsys)
    assert (code, "exists already; --force writes over it" in err) == (2, True)
    assert place.read_text() == "mine"
    for options in (["--force"], []):  # a run in its own folder goes on
        assert ended([*command, *options], capsys)[0] == 0


WRONG = {
    "no folder": (["nowhere"], "is not a folder"),
    "nothing at all": ([], "name the folder of the cases"),
    "an empty folder": (["{empty}"], "has no case"),
    "a pattern that fits nothing": (["{images}", "--select", "PET*"], "no case that is wanted"),
    "sentences that volumes do not have": (["{images}", "--prompt", "standard", "--predictions", "x"], "is for images"),
    "patients without a group": (["{images}", "--cluster", "CT_.*"], "no group"),
    "a broken pattern": (["{images}", "--cluster", "("], "no regular expression"),
    "no number of workers": (["{images}", "--workers", "0"], "invalid positive value"),
    "no summaries": (["--compare", "{empty}/a.json", "{empty}/b.json"], r"not a summary.json"),
}


@pytest.mark.parametrize(("words", "sentence"), WRONG.values(), ids=WRONG)
def test_a_wrong_command_line_is_told_in_a_sentence(tmp_path, capsys, words, sentence):
    (tmp_path / "empty").mkdir()
    places = {"empty": tmp_path / "empty", "images": write_challenge(tmp_path / "data")}
    argv = [word.format(**places) for word in words]
    code, err = ended(["evaluate", *argv, "-o", tmp_path / "out"], capsys)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err


def test_a_server_that_is_not_there_is_exit_code_3(tmp_path, capsys):
    images = write_biomedparse(tmp_path / "data")
    code, err = ended(["evaluate", images, "-o", tmp_path / "out", "--url", "127.0.0.1:1"], capsys)
    assert code == 3
    assert "not available" in err


def test_without_the_extra_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("medimageparse_client.evaluate")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "surface_distance", None)
    code, err = ended(["evaluate", write_challenge(tmp_path / "data"), "-o", tmp_path / "out"], capsys)
    assert code == 2
    assert "pip install 'medimageparse-client[evaluate]'" in err
    assert "surface_distance is missing" in err
