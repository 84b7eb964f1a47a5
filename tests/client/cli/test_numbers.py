"""--statistics, --json, --quiet and -v: what a run tells, and to whom."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from medimageparse_client.cli import main
from PIL import Image


@pytest.fixture(autouse=True)
def here(tmp_path, volume_file, monkeypatch):
    """A folder with ct.nii.gz and scans/{a,b}.nii.gz."""
    monkeypatch.chdir(tmp_path)
    Path("scans").mkdir()
    for name in ("a", "b"):
        Path(f"scans/{name}.nii.gz").write_bytes(volume_file.read_bytes())


def rows(path, delimiter=","):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize(("ending", "delimiter"), [(".csv", ","), (".tsv", "\t"), (".CSV", ",")])
def test_statistics_of_a_folder_have_one_row_a_file_and_prompt(ending, delimiter):
    assert main(["segment", "scans", "liver", "left, kidney", "--statistics", f"numbers{ending}"]) == 0
    table = rows(f"numbers{ending}", delimiter)
    assert [(row["volume"], row["prompt"], row["label"]) for row in table] == [
        (f"scans/{name}.nii.gz", prompt, label)
        for name in "ab"
        for prompt, label in (("liver", "1"), ("left, kidney", "2"))
    ]
    assert table[1]["present"] == "true"
    assert (float(table[1]["mean"]), float(table[1]["deviation"]), table[1]["voxels"]) == (2, 0, "36")


@pytest.mark.usefixtures("triton")
def test_the_values_are_those_of_the_file_as_its_header_scales_them(affine):
    stored = np.zeros((4, 4, 4), np.int16)
    stored[0, 0, 0], stored[1, 1, 1] = 3, 4
    image = nib.Nifti1Image(stored, affine)
    image.header.set_slope_inter(0.4, 0)  # the server here cuts 1.2 and 1.6 to label 1
    nib.save(image, "scaled.nii.gz")
    assert main(["segment", "scaled.nii.gz", "liver", "--statistics", "numbers.json"]) == 0
    [row] = json.loads(Path("numbers.json").read_text("utf-8"))
    assert (row["mean"], row["deviation"]) == (pytest.approx(1.4), pytest.approx(0.2))


def test_a_mask_without_voxels_has_no_mean(triton):
    triton.told = {"spleen": {"present": False, "why_absent": "low_score"}}
    assert main(["segment", "ct.nii.gz", "liver", "kidney", "spleen", "--statistics", "numbers.csv"]) == 0
    row = rows("numbers.csv")[2]
    assert (row["present"], row["why_absent"], row["mean"], row["deviation"]) == ("false", "low_score", "", "")


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_a_run_that_goes_on_keeps_the_rows_of_the_files_that_are_done(triton, ending):
    command = ["segment", "scans", "liver", "-o", "out", "--statistics", f"numbers.{ending}", "--skip-existing"]
    assert main(command) == 0
    first = Path(f"numbers.{ending}").read_bytes()
    Path("out/b.nii.gz").unlink()
    triton.requests.clear()
    assert main(command) == 0
    assert len(triton.requests) == 1
    assert Path(f"numbers.{ending}").read_bytes() == first


def test_a_file_whose_rows_are_missing_is_not_done(triton):
    assert main(["segment", "scans", "liver", "-o", "out", "--skip-existing"]) == 0
    triton.requests.clear()
    assert main(["segment", "scans", "liver", "-o", "out", "--skip-existing", "--statistics", "n.tsv"]) == 0
    assert len(triton.requests) == 2
    assert len(rows("n.tsv", "\t")) == 2


def test_a_run_without_an_answer_leaves_the_numbers_as_they_are(triton):
    Path("numbers.csv").write_text("mine")
    triton.is_loaded = False
    assert main(["segment", "ct.nii.gz", "liver", "--statistics", "numbers.csv", "--force"]) == 3
    assert Path("numbers.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--statistics", "numbers.xlsx"], "--statistics names a .csv, .tsv or .json file"),
        (["--statistics", "old.csv", "--skip-existing"], "no file of statistics of volumes"),
        (["--statistics", "old.json", "--skip-existing"], "no file of statistics"),
        (["-o", "out.nii.gz", "--statistics", "out.json"], "would have the same name"),
        (["-o", "-", "--json"], "--json takes standard output"),
        (["--quiet"], "nothing would be written"),
    ],
)
def test_wrong_command_lines_send_nothing(options, sentence, triton, capsys):
    Path("old.csv").write_text("a,b\n1,2\n")
    Path("old.json").write_text("{}")
    with pytest.raises(SystemExit) as stop:
        main(["segment", "ct.nii.gz", "liver", *options])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
    assert triton.requests == []


@pytest.mark.usefixtures("triton")
def test_json_writes_one_line_a_file_and_needs_no_output(capsys):
    Path("scans/c.nii.gz").write_bytes(b"hello")
    assert main(["segment", "scans", "liver", "--json"]) == 1
    out, err = capsys.readouterr()
    told = {line["file"]: line for line in map(json.loads, out.splitlines())}
    assert set(told) == {"scans/a.nii.gz", "scans/b.nii.gz", "scans/c.nii.gz"}
    assert told["scans/a.nii.gz"]["prompts"][0]["text"] == "liver"
    assert told["scans/c.nii.gz"]["error"] == "this is not a NIfTI file, nor .nrrd or .mha; send one of these"
    assert "2 of 3 volumes segmented\n" in err
    assert {path.name for path in Path().iterdir()} == {"ct.nii.gz", "scans"}


def test_quiet_leaves_errors_only(triton, capsys):
    triton.warnings = ("sides are unknown",)
    assert main(["segment", "ct.nii.gz", "liver", "-o", "out/", "--quiet"]) == 0
    assert main(["segment", "scans", "liver", "-o", "out", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["segment", "gone.nii.gz", "liver", "-o", "out", "--quiet"]) == 5
    assert capsys.readouterr().err == "medimageparse: gone.nii.gz: No such file or directory\n"


@pytest.mark.usefixtures("triton")
def test_verbose_tells_times_and_the_table_of_each_file(capsys):
    assert main(["segment", "scans", "liver", "-o", "out", "-v"]) == 0
    out, err = capsys.readouterr()
    assert sorted(err.splitlines()) == [f"medimageparse: scans/{name}.nii.gz: total 12 ms" for name in "ab"]
    assert out.count("used: ") == 2


def test_the_table_says_why_a_prompt_is_absent_or_smaller(triton, capsys):
    triton.told = {
        "liver": {"lost_to": [{"label": 2, "slices": 20}]},
        "spleen": {"present": False, "why_absent": "low_score"},
        "abdominal aorta": {"present": False, "why_absent": "overlap", "lost_to": [{"label": 2, "slices": 4}]},
    }
    assert main(["segment", "ct.nii.gz", "liver", "aorta", "spleen", "abdominal aorta", "-o", "masks.nii.gz"]) == 0
    liver, aorta, spleen, other = capsys.readouterr().out.splitlines()[1:5]
    assert liver.endswith("liver  (overlaps label 2, which has 20 of its slices)")
    assert aorta.endswith("aorta")
    assert spleen.endswith("spleen  (absent: its score is at most 0.5 on every slice)")
    assert "(absent: other prompts have what it found)  (overlaps label 2, which has 4 of its slices)" in other


@pytest.mark.usefixtures("triton")
def test_images_have_numbers_too(capsys):
    Image.new("RGB", (8, 6), "red").save("xray.png")
    assert main(["segment-image", "xray.png", "left lung", "--statistics", "n.csv", "--json"]) == 0
    [row] = rows("n.csv")
    assert (row["image"], row["prompt"], row["area_pixels"]) == ("xray.png", "left lung", "48")
    assert json.loads(capsys.readouterr().out)["file"] == "xray.png"
