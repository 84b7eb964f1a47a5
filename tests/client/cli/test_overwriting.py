"""Nothing that exists is written over unless a person says so; what was written is told."""

import numpy as np
import pytest
from medimageparse_client.cli import main

OPTIONS = {
    "output": ["-o", "out/masks.nii.gz", "--report", "/dev/null"],
    "report": ["-o", "out/masks.nii.gz"],
    "preview": ["--preview", "out/masks.png"],
    "masks": ["--masks-dir", "out/each"],
    "mesh": ["--mesh", "out/mesh"],
    "statistics": ["--statistics", "out/numbers.csv"],
    "label table": ["--json", "--label-table", "out/labels.ctbl"],
    "probabilities": ["--probabilities", "out/p.nii.gz"],
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, volume_file):
    monkeypatch.chdir(tmp_path)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_exists_stays_without_force(name, triton, tmp_path, capsys):
    command = ["segment", "ct.nii.gz", "liver", *OPTIONS[name]]
    assert main(command) == 0
    written = contents(tmp_path / "out")
    assert written
    n_requests = len(triton.requests)
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert "already; --force writes over it" in capsys.readouterr().err
    assert (contents(tmp_path / "out"), len(triton.requests)) == (written, n_requests)
    for path in written:
        path.write_bytes(b'{"prompts": 0}')
    assert main([*command, "--force"]) == 0
    assert contents(tmp_path / "out").keys() == written.keys()
    assert b'{"prompts": 0}' not in contents(tmp_path / "out").values()


def test_one_of_many_is_enough_and_a_run_goes_on_with_skip_existing(triton, volume_file, tmp_path, capsys):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in "ab":
        (scans / f"{name}.nii.gz").write_bytes(volume_file.read_bytes())
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b.nii.gz").write_bytes(b"mine")
    with pytest.raises(SystemExit):
        main(["segment", "scans", "liver", "-o", "out"])
    assert not triton.requests
    assert (tmp_path / "out/b.nii.gz").read_bytes() == b"mine"
    capsys.readouterr()
    (tmp_path / "out/b.json").write_bytes(b'{"prompts": 0}')
    assert main(["segment", "scans", "liver", "-o", "out", "--skip-existing"]) == 0
    assert len(triton.requests) == 1


def test_what_leaves_no_file_is_never_taken_for_done(triton, capsys):
    assert main(["segment", "ct.nii.gz", "liver", "--json", "--skip-existing"]) == 0
    assert len(triton.requests) == 1
    with pytest.raises(SystemExit) as ended:
        main(["segment", "dicomweb://pacs/studies/1.2/series/1.3", "liver", "--store", "--skip-existing"])
    assert ended.value.code == 2
    assert "does not know what the archive has" in capsys.readouterr().err


def test_images_alike(triton, tmp_path):
    from PIL import Image

    Image.fromarray(np.zeros((8, 9), np.uint8)).save("xray.png")
    command = ["segment-image", "xray.png", "lung", "-o", "masks.png"]
    assert main(command) == 0
    with pytest.raises(SystemExit):
        main(command)
    assert main([*command, "--force"]) == 0


def test_what_was_written_is_told(triton, capsys):
    assert main(["segment", "ct.nii.gz", "liver", "-o", "new/", "--masks-dir", "each", "--preview", "p.png"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "wrote: new/ct.nii.gz, p.png, new/ct.json, each/"
    assert main(["segment", "ct.nii.gz", "liver", "-o", "b.nii.gz", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
