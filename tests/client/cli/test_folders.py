"""Folders in folders, series of volumes, folders of DICOM, and commands that other packages add."""

import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from medimageparse_client import Client, InvalidVolume
from medimageparse_client.cli import commands, main
from medimageparse_client.formats.mha import encode_mha
from medimageparse_client.formats.nrrd import encode_nrrd
from tritonclient.utils import InferenceServerException


@pytest.fixture(autouse=True)
def here(tmp_path, volume_file, monkeypatch):
    """A folder with ct.nii.gz, scans/a.nii.gz and scans/{one,two}/a.nii.gz."""
    monkeypatch.chdir(tmp_path)
    for folder in ("scans", "scans/one", "scans/two"):
        Path(folder).mkdir()
        Path(folder, "a.nii.gz").write_bytes(volume_file.read_bytes())


def label_maps(folder):
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*.nii.gz")}


@pytest.mark.usefixtures("triton")
def test_folders_in_a_folder_are_left_out_and_that_is_told(capsys):
    assert main(["segment", "scans", "liver", "-o", "out/"]) == 0
    told = "medimageparse: scans/one and 1 more: folders are left out; --recursive searches them\n"
    assert capsys.readouterr().err == told
    assert label_maps("out") == {"a.nii.gz"}


def test_recursive_searches_them_and_keeps_their_order_but_not_the_results(triton):
    command = ["segment", "scans", "liver", "-o", "scans/masks", "--masks-dir", "scans/each", "--recursive", "--force"]
    for _ in range(2):
        triton.requests.clear()
        assert main(command) == 0
        assert label_maps("scans/masks") == {"a.nii.gz", "one/a.nii.gz", "two/a.nii.gz"}
        assert label_maps("scans/each") == {"a/liver.nii.gz", "one/a/liver.nii.gz", "two/a/liver.nii.gz"}
        assert len(triton.requests) == 3


def test_a_folder_may_hold_volumes_of_every_kind(triton, volume, affine, capsys):
    Path("scans/b.nrrd").write_bytes(encode_nrrd(volume.astype(np.uint8), affine))
    Path("scans/c.MHA").write_bytes(encode_mha(volume.astype(np.uint8), affine))
    Path("scans/d").write_bytes(Path("scans/b.nrrd").read_bytes())
    Path("scans/e.nhdr").write_bytes(b"NRRD0004\ndata file: e.raw\n")
    assert main(["segment", "scans", "--prompt", "liver", "--prompt", "spleen", "-o", "out"]) == 1
    assert label_maps("out") == {"a.nii.gz", "b.nii.gz", "c.nii.gz", "d.nii.gz"}
    assert "e.nhdr: the header names another file" in capsys.readouterr().err
    for name in label_maps("out"):
        np.testing.assert_array_equal(nib.load(Path("out", name)).dataobj, volume)


@pytest.mark.usefixtures("triton")
def test_a_link_that_leads_back_is_not_followed():
    Path("scans/one/back").symlink_to(Path("scans").resolve())
    assert main(["segment", "scans", "liver", "-o", "out", "--recursive"]) == 0
    assert label_maps("out") == {"a.nii.gz", "one/a.nii.gz", "two/a.nii.gz"}


@pytest.fixture(params=[(3,), (3, 2)], ids=str)
def series(request, affine):
    """Volumes of which the n-th has n + 1 in its first voxel."""
    n = int(np.prod(request.param))
    values = np.zeros((4, 5, 6, n), np.int16)
    values[0, 0, 0] = np.arange(1, n + 1)
    nib.save(nib.Nifti1Image(values.reshape(4, 5, 6, *request.param, order="F"), affine), "series.nii.gz")
    return n


def test_a_series_is_refused_before_it_is_sent(series, triton, capsys):
    assert main(["segment", "series.nii.gz", "liver", "-o", "out.nii.gz"]) == 5
    assert f"the file holds {series} volumes; choose one: time_point (--time-point)" in capsys.readouterr().err
    assert main(["segment", "series.nii.gz", "liver", "-o", "out.nii.gz", "--time-point", str(series)]) == 5
    assert f"there is no time point {series}; the last one is {series - 1}" in capsys.readouterr().err
    assert triton.requests == []


@pytest.mark.usefixtures("triton")
def test_one_volume_of_a_series_is_sent(series, affine):
    prompts = [f"organ {k}" for k in range(series)]
    with Client() as client:
        result = client.segment("series.nii.gz", prompts, time_point=series - 1)
    assert result.label_map.shape == (4, 5, 6)
    assert np.argwhere(result.label_map).tolist() == [[0, 0, 0]]
    assert result.label_map.max() == series
    np.testing.assert_allclose(result.affine, affine, atol=1e-5)


@pytest.mark.usefixtures("triton")
def test_a_volume_alone_is_its_own_first_time_point():
    assert main(["segment", "ct.nii.gz", "liver", "-o", "out.nii.gz", "--time-point", "0"]) == 0
    assert main(["segment", "ct.nii.gz", "liver", "-o", "out.nii.gz", "--time-point", "1", "--force"]) == 5


def test_a_folder_without_slices_says_so(triton, capsys):
    Path("dicom").mkdir()
    Path("dicom/IM1").write_bytes(bytes(128) + b"DICM" + bytes(64))
    assert main(["segment", "dicom", "liver", "-o", "out.nii.gz"]) == 5
    assert "there are no slices of a volume" in capsys.readouterr().err
    with Client() as client, pytest.raises(InvalidVolume, match="this is a folder without DICOM"):
        client.segment("scans", "liver")
    assert triton.requests == []


def test_fewer_requests_are_sent_where_the_server_has_no_room(triton, monkeypatch, volume_file):
    n_files, room = 8, threading.Semaphore(2)
    for k in range(n_files):
        Path(f"scans/{k}.nii.gz").write_bytes(volume_file.read_bytes())
    full = InferenceServerException("Exceeds maximum queue size", "StatusCode.UNAVAILABLE")
    both, infer = threading.Barrier(2), triton.infer
    begun = iter(range(100))

    def crowded(*arguments, **options):
        if not room.acquire(blocking=False):
            raise full
        try:
            if next(begun) < 2:
                both.wait(timeout=20)  # two are under way for sure, while the others come
            return infer(*arguments, **options)
        finally:
            room.release()

    monkeypatch.setattr(triton, "infer", crowded)
    assert main(["segment", "scans", "liver", "-o", "out", "--in-flight", "8"]) == 0
    assert len(label_maps("out")) == n_files + 1


@pytest.mark.parametrize("command", ["segment", "segment-image", "health", "evaluate"])
def test_an_error_prints_the_usage_of_the_command(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "x", "-o", "out", "--unknown"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"usage: medimageparse {command} ")


def test_a_missing_prompt_is_a_wrong_command_line(triton, capsys):
    for line in (["segment", "ct.nii.gz"], ["segment-image", "x.png"]):
        with pytest.raises(SystemExit) as stop:
            main([*line, "-o", "out/"])
        assert stop.value.code == 2
        assert "no prompt says what to look for" in capsys.readouterr().err
    assert triton.requests == []


def test_a_command_that_another_package_adds_gets_its_arguments(monkeypatch, capsys):
    entry = SimpleNamespace(name="export", value="package.module:main", load=lambda: lambda argv: len(argv))
    monkeypatch.setattr(commands, "entry_points", lambda group: [entry] if group == commands.GROUP else [])
    assert main(["export", "--checkpoint", "-h"]) == 3
    monkeypatch.setattr(sys, "argv", ["medimageparse", "export"])
    assert main() == 1
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "export" in capsys.readouterr().out
