import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import medimageparse_client
import nibabel as nib
import numpy as np
import pytest
from medimageparse_client.cli import main


def test_the_command_of_the_readme(triton, volume_file, volume, monkeypatch, capsys):
    monkeypatch.chdir(volume_file.parent)
    command = ["segment", "ct.nii.gz", "liver", "left kidney"]
    command += ["-o", "masks.nii.gz", "--preview", "masks.png", "--report", "report.json"]
    assert main(command) == 0
    np.testing.assert_array_equal(nib.load("masks.nii.gz").dataobj, volume)
    with open("report.json", encoding="utf-8") as report:
        assert [described["text"] for described in json.load(report)["prompts"]] == ["liver", "left kidney"]
    assert {path.name for path in volume_file.parent.iterdir()} == {
        "ct.nii.gz",
        "masks.nii.gz",
        "masks.png",
        "report.json",
    }
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split()[0] for line in out.splitlines()] == ["label", "1", "2", "used:", "wrote:"]
    assert out.splitlines()[2].split() == ["2", "0.75", "36", "0.1", "left", "kidney"]


def test_the_table_of_a_cut_prompt_and_a_file_without_orientation(triton, volume_file, tmp_path, capsys):
    triton.voxel_ml = None
    assert main(["segment", str(volume_file), "liver " * 80, "-o", str(tmp_path / "masks.nii.gz")]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split()[3] == "-"
    assert line.endswith("(cut to 77 tokens)")


def test_prompts_may_stand_after_options(triton, volume_file, tmp_path):
    output = str(tmp_path / "new" / "masks.nii")
    assert main(["segment", str(volume_file), "-o", output, "liver", "--intensity", "ct-bone", "spleen"]) == 0
    assert triton.requests[0]["text"] == "liver & spleen"
    assert triton.requests[0]["intensity"] == "ct-bone"
    assert (tmp_path / "new" / "masks.nii").exists()


def test_prompts_from_a_file(triton, volume_file, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# organs\nliver\n\n  the left kidney \n", "utf-8")
    output = str(tmp_path / "masks.nii.gz")
    assert main(["segment", str(volume_file), "--prompts-file", str(prompts), "--prompt", "aorta", "-o", output]) == 0
    assert triton.requests[0]["text"] == "aorta & liver & the left kidney"


@pytest.fixture
def folder(tmp_path, volume_file):
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz"):
        (folder / name).write_bytes(volume_file.read_bytes())
    (folder / "notes.txt").write_text("not a volume")
    return folder


def names(folder):
    """Of all but the reports, which lie beside the label maps."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".json")


def test_all_results_of_volumes_may_go_into_one_folder(triton, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", str(folder), "liver", "-o", str(out), "--preview", str(out), "--report", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        f"{stem}.{ending}" for stem in "abc" for ending in ("json", "nii.gz", "png")
    }
    assert "3 of 3 volumes segmented" in capsys.readouterr().out


def test_several_files_and_folders(triton, folder, volume_file, tmp_path):
    command = ["segment", str(volume_file), str(folder), "--prompt", "liver", "--prompt", "spleen"]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    assert names(tmp_path / "out") == ["a.nii.gz", "b.nii.gz", "c.nii.gz", "ct.nii.gz"]
    assert {request["text"] for request in triton.requests} == {"liver & spleen"}


def test_requests_are_in_flight_together(triton, folder, tmp_path, monkeypatch):
    together = threading.Barrier(3, timeout=10)
    infer = triton.infer
    monkeypatch.setattr(triton, "infer", lambda *args, **options: (together.wait(), infer(*args, **options))[1])
    assert main(["segment", str(folder), "liver", "-o", str(tmp_path / "out"), "--in-flight", "3"]) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ct.nii.gz", "liver"], "-o"),
        (["ct.nii.gz", "b.nii.gz", "liver", "-o", "out"], "looks like a file"),
        (["ct.nii.gz", "spleen", "--prompt", "liver", "-o", "out"], "all arguments are"),
        (
            ["ct.nii.gz", "liver", "-o", "masks"],
            "--output names a .nii.gz, .nii, .seg.nrrd, .nrrd, .mha, .seg.dcm or",
        ),
        (["ct.nii.gz", "liver", "-o", "masks.nii.gz", "--preview", "masks.jpg"], "--preview names a .png"),
        (["ct.nii.gz", "b.nii.gz", "--prompt", "liver", "-o", "masks.nii.gz"], "names a folder"),
        (["ct.nii.gz", "x/ct.nii.gz", "--prompt", "liver", "-o", "out"], "same name"),
        (["ct.nii.gz", "liver", "-o", "ct.nii.gz"], "overwrite"),
        (["ct.nii.gz", "liver", "-o", "."], "overwrite"),
        (["ct.nii.gz", "liver", "-o", "masks.nii.gz", "--fast"], "unrecognized argument: --fast"),
        (["ct.nii.gz", "liver", "-o", "masks.nii.gz", "--timeout", "0"], "--timeout"),
        (["ct.nii.gz", "liver", "-o", "masks.nii.gz", "--url", "localhost"], "host:port"),
        (["empty", "liver", "-o", "out"], "holds no"),
    ],
)
def test_wrong_command_lines(arguments, sentence, triton, volume_file, monkeypatch, capsys):
    monkeypatch.chdir(volume_file.parent)
    (volume_file.parent / "empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        main(["segment", *arguments])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
    assert triton.requests == []


def test_ctrl_c(triton, volume_file, tmp_path, capsys):
    triton.failures["liver"] = KeyboardInterrupt()
    assert main(["segment", str(volume_file), "liver", "-o", str(tmp_path / "masks.nii.gz")]) == 130
    assert capsys.readouterr().err == "medimageparse: stopped\n"


def test_health(triton, capsys):
    assert main(["health"]) == 0
    live = "triton 2.51.0 at localhost:8001: live\n"
    assert capsys.readouterr().out == f"{live}medimageparse_3d: ready\nmedimageparse: ready\n"
    triton.models = ("medimageparse",)
    assert main(["health"]) == 0
    assert capsys.readouterr().out == f"{live}medimageparse_3d: not ready\nmedimageparse: ready\n"
    triton.is_loaded = False
    assert main(["health"]) == 3
    assert main(["health", "--url", "nobody:8001"]) == 3
    assert "nobody:8001 is not available" in capsys.readouterr().err


def test_a_model_that_does_not_segment_is_not_healthy(triton, capsys):
    triton.failures["liver"] = triton.failures["body"] = triton.failures["crash"]
    assert main(["health"]) == 3
    output = capsys.readouterr()
    assert "medimageparse_3d: not ready\nmedimageparse: not ready\n" in output.out
    boom = r"does not segment: boom \(request \w{16}\)"
    assert re.fullmatch(rf"medimageparse: medimageparse_3d {boom}; medimageparse {boom}\n", output.err)


@pytest.mark.usefixtures("triton")
def test_a_model_whose_answers_differ_is_not_healthy(capsys, monkeypatch):
    answers = iter(range(4))
    monkeypatch.setattr(medimageparse_client.Client, "_segment_canary", lambda client, model: next(answers))
    assert main(["health"]) == 3
    assert "medimageparse_3d does not segment: two answers to one request differ" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["segment"], ["segment-image"], ["health"]])
def test_help_names_the_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert "3  server not available" in capsys.readouterr().out


def test_as_a_module():
    command = [sys.executable, "-m", "medimageparse_client", "health", "--url", "127.0.0.1:9", "--timeout", "5"]
    environment = os.environ | {"PYTHONPATH": str(Path(medimageparse_client.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert done.stderr.startswith("medimageparse: the server at 127.0.0.1:9 is not available")
