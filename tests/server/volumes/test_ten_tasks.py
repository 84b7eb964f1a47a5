"""What a researcher does in the first ten minutes, as it is typed, against a real server."""

import csv
import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from helpers.places import ROOT


@pytest.fixture
def type_in(server, volume, tmp_path):
    """Types a command in a folder with ct.nii.gz: its exit code, and what it said on both streams."""
    nib.save(volume, tmp_path / "ct.nii.gz")

    def type_in(*words):
        command = [sys.executable, "-m", "medimageparse_client", *words]
        if words[0] in ("segment", "health") and "--help" not in words:
            command += ["--url", server.grpc_url]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        return ran.returncode, ran.stdout, ran.stderr

    return type_in


def test_1_why_a_structure_is_absent_or_halved(type_in):
    code, out, _ = type_in("segment", "ct.nii.gz", "liver", "hepatic organ", "brain", "-o", "masks.nii.gz")
    assert code == 0
    assert "overlaps label" in out
    assert "absent: its score is at most 0.5 on every slice" in out


def test_2_what_the_labels_are(type_in, tmp_path):
    command = ("segment", "ct.nii.gz", "liver", "spleen", "-o", "masks.nii.gz", "--label-table", "names.ctbl")
    assert type_in(*command)[0] == 0
    told = json.loads((tmp_path / "masks.json").read_text())
    assert [prompt["text"] for prompt in told["prompts"]] == ["liver", "spleen"]
    assert "1 liver " in (tmp_path / "names.ctbl").read_text()


def test_3_numbers(type_in, tmp_path):
    assert type_in("segment", "ct.nii.gz", "liver", "spleen", "--statistics", "numbers.csv")[0] == 0
    with (tmp_path / "numbers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == ["liver", "spleen"]
    assert float(rows[0]["volume_ml"]) > 100
    code, out, _ = type_in("segment", "ct.nii.gz", "liver", "--json", "--quiet")
    assert code == 0
    told = json.loads(out)
    assert told["file"] == "ct.nii.gz"
    assert told["prompts"][0]["present"]


def test_4_a_folder_with_a_broken_file_and_once_more(type_in, tmp_path):
    (tmp_path / "scans/day2").mkdir(parents=True)
    for name in ("scans/a.nii.gz", "scans/day2/b.nii.gz"):
        (tmp_path / name).write_bytes((tmp_path / "ct.nii.gz").read_bytes())
    (tmp_path / "scans/broken.nii.gz").write_bytes(b"no volume")
    command = ("segment", "scans", "liver", "-o", "out", "--recursive", "--skip-existing")
    code, out, said = type_in(*command)
    assert (code, (tmp_path / "out/day2/b.nii.gz").is_file()) == (1, True)
    assert "broken.nii.gz: this is not a NIfTI file" in said
    assert "2 of 3 volumes segmented" in out + said
    (tmp_path / "scans/broken.nii.gz").unlink()
    code, out, said = type_in(*command)
    assert code == 0
    assert "2 skipped" in out + said


def test_5_one_structure_as_a_file(type_in, tmp_path):
    assert type_in("segment", "ct.nii.gz", "liver", "spleen", "--masks-dir", "each")[0] == 0
    liver = np.asarray(nib.load(tmp_path / "each/liver.nii.gz").dataobj)
    assert set(np.unique(liver)) == {0, 1}


def test_6_from_another_machine_one_asks_for_its_health_first(type_in):
    code, out, _ = type_in("health")
    assert code == 0
    assert "medimageparse_3d" in out


def test_7_help_and_a_mistake(type_in):
    code, out, _ = type_in("segment", "--help")
    assert code == 0
    for words in ("one prompt a structure", "a crop without air", "exit codes:"):
        assert words in " ".join(out.split())
    code, _, said = type_in("segment", "ct.nii.gz", "-o", "masks.nii.gz")
    assert code == 2
    assert said.startswith("usage: medimageparse segment")
    assert "no prompt says what to look for" in said


def test_8_a_4d_file_is_refused_before_it_is_sent(type_in, tmp_path):
    image = nib.load(tmp_path / "ct.nii.gz")
    voxels = np.stack([np.asarray(image.dataobj)] * 2, axis=3)
    nib.save(nib.Nifti1Image(voxels, image.affine), tmp_path / "series.nii.gz")
    code, _, said = type_in("segment", "series.nii.gz", "liver", "-o", "new/")
    assert code == 5
    assert "choose one: time_point (--time-point) from 0 on" in said
    assert type_in("segment", "series.nii.gz", "liver", "-o", "new/", "--time-point", "1")[0] == 0
    assert (tmp_path / "new/series.nii.gz").is_file()


def test_9_a_word_that_the_demo_does_not_know(type_in):
    code, _, said = type_in("segment", "ct.nii.gz", "gall bladder", "-o", "masks.nii.gz")
    assert code == 0
    assert "was not trained on all words of prompt 1" in said


def test_10_the_curl_of_the_readme_ends_with_a_file():
    readme = (ROOT / "README.md").read_text()
    assert "localhost:8080/v1/volumes -o demo_output/curl.nii.gz" in readme
