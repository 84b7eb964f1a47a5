"""What holds for volumes and images alike, in Python and on the command line."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from helpers.image_answers import image_file
from medimageparse_client import (
    Client,
    InvalidImage,
    InvalidRequest,
    InvalidVolume,
    RequestTimeout,
    ServerError,
    ServerUnavailable,
)
from medimageparse_client.cli import main


class Kind(NamedTuple):
    """A command, the method of the client that it calls, a file that it takes, and how its results end."""

    command: str
    noun: str
    model: str
    method: str
    file: Path
    ending: str
    invalid: type[InvalidRequest]
    no_file: str
    outputs: tuple[str, ...]

    def ask(self, client, prompts):
        return getattr(client, self.method)(self.file, prompts)


@pytest.fixture(params=["volume", "image"])
def kind(request, triton, volume_file, tmp_path):
    if request.param == "volume":
        outputs = ("nifti_file", "scores", "report")
        words = "this is not a NIfTI file"
        return Kind(
            "segment", "volume", "medimageparse_3d", "segment", volume_file, ".nii.gz", InvalidVolume, words, outputs
        )
    path = tmp_path / "xray.png"
    path.write_bytes(image_file(np.eye(9, dtype=np.uint8) * 200))
    outputs = ("probabilities", "text_features", "report")
    words = "this is not a PNG, JPEG, TIFF, BMP, WebP or DICOM file"
    return Kind("segment-image", "image", "medimageparse", "segment_image", path, ".png", InvalidImage, words, outputs)


@pytest.fixture
def folder(kind, tmp_path):
    """Three such files, and another."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}{kind.ending}").write_bytes(kind.file.read_bytes())
    (folder / "notes.txt").write_text("something else")
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        ([], "no prompt"),
        ("", "is empty"),
        (["liver", "  "], "is empty"),
        (["liver & spleen"], "separates prompts"),
        (["\udcff"], "Unicode"),
        ("\udcff", "Unicode"),
    ],
)
def test_prompts_that_are_not_sent(kind, triton, prompts, sentence):
    with Client() as client, pytest.raises(InvalidRequest, match=sentence):
        kind.ask(client, prompts)
    assert triton.requests == []


def test_a_missing_file_is_found_before_anything_is_sent(kind, triton):
    kind.file.unlink()
    with Client() as client, pytest.raises(kind.invalid):
        kind.ask(client, "liver")
    assert triton.requests == []


@pytest.mark.parametrize(
    ("prompt", "error", "sentence"),
    [
        ("refused", InvalidRequest, "^the prompt is bad; send another$"),
        ("crash", ServerError, r"^boom \(request \w{16}\)$"),
        ("slow", RequestTimeout, "no answer from localhost:8001 within 600 s"),
        ("gone", ServerUnavailable, "socket closed"),
    ],
)
def test_server_errors(kind, prompt, error, sentence):
    with Client() as client, pytest.raises(error, match=sentence):
        kind.ask(client, prompt)


@pytest.mark.parametrize("place", range(3))
def test_an_answer_without_an_output(kind, triton, place):
    triton.missing_output = kind.outputs[place]
    with Client() as client, pytest.raises(ServerError, match=f"no {triton.missing_output}"):
        kind.ask(client, "liver")


def test_one_text_is_one_prompt_and_is_trimmed(kind):
    with Client() as client:
        assert kind.ask(client, " left kidney\n").labels == {"left kidney": 1}


def test_a_repeated_prompt_keeps_its_first_label(kind):
    with Client() as client:
        result = kind.ask(client, ["liver", "spleen", "liver"])
    assert result.labels == {"liver": 1, "spleen": 2}
    assert set(np.unique(result.label_map)) <= {0, 1, 2}
    assert len(result.report["prompts"]) == 3


@pytest.mark.parametrize(
    ("prompt", "code", "sentence"),
    [
        ("gone", 3, "is not available: socket closed"),
        ("slow", 4, "no answer from localhost:8001 within 9 s"),
        ("refused", 6, "the prompt is bad; send another"),
        ("crash", 7, "boom"),
    ],
)
def test_exit_codes(kind, tmp_path, capsys, prompt, code, sentence):
    output = tmp_path / f"masks{kind.ending}"
    command = [kind.command, str(kind.file), prompt, "-o", str(output), "--timeout", "9", "--retry-for", "0"]
    assert main(command) == code
    err = capsys.readouterr().err
    assert err.startswith(f"medimageparse: {kind.file}: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert not output.exists()


def test_a_failing_file_does_not_stop_the_others(kind, folder, tmp_path, capsys):
    (folder / f"b{kind.ending}").write_bytes(b"hello")
    assert main([kind.command, str(folder), "liver", "-o", str(tmp_path / "out")]) == 1
    assert names(tmp_path / "out") == sorted(f"{stem}{ending}" for stem in "ac" for ending in (kind.ending, ".json"))
    out, err = capsys.readouterr()
    assert f"2 of 3 {kind.noun}s segmented" in out
    assert f"medimageparse: {folder}/b{kind.ending}: {kind.no_file}" in err


def test_a_server_that_is_not_there_or_lacks_the_model(kind, folder, triton, tmp_path, capsys):
    assert main([kind.command, str(folder), "liver", "-o", str(tmp_path / "out"), "--url", "nobody:8001"]) == 3
    assert "is not available: Connection refused" in capsys.readouterr().err
    triton.models = tuple(model for model in triton.models if model != kind.model)
    assert main([kind.command, str(folder), "liver", "-o", str(tmp_path / "out")]) == 3
    told = [line for line in capsys.readouterr().err.splitlines() if "left out" not in line]
    assert len(told) == 1
    assert told[0].endswith(f"has not loaded {kind.model}")
    assert triton.requests == []


def test_results_of_a_folder_are_called_after_its_files(kind, folder, tmp_path, capsys):
    out = {option: tmp_path / option for option in ("--output", "--preview", "--report")}
    options = [str(argument) for pair in out.items() for argument in pair]
    assert main([kind.command, str(folder), "liver", *options]) == 0
    assert names(out["--output"]) == [f"{name}{kind.ending}" for name in "abc"]
    assert names(out["--preview"]) == ["a.png", "b.png", "c.png"]
    assert names(out["--report"]) == ["a.json", "b.json", "c.json"]
    assert f"3 of 3 {kind.noun}s segmented" in capsys.readouterr().out


def test_what_cannot_be_read_or_written_is_5_what_is_refused_6_and_no_prompt_2(kind, triton, tmp_path, capsys):
    output = ["-o", str(tmp_path / f"masks{kind.ending}")]
    assert main([kind.command, str(tmp_path / f"no{kind.ending}"), "liver", *output]) == 5
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([kind.command, str(kind.file), "liver", "-o", str(tmp_path / "file" / f"m{kind.ending}")]) == 5
    assert main([kind.command, str(kind.file), "--prompts-file", "no.txt", *output]) == 5
    assert main([kind.command, str(kind.file), "liver & spleen", *output]) == 6
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([kind.command, str(kind.file), *output])
    assert stop.value.code == 2
    assert "no prompt" in capsys.readouterr().err
    assert triton.requests == []
