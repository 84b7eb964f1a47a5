"""The command `medimageparse segment-image`."""

import json
import sys
import warnings
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pydicom
import pytest
from helpers.dicom_files import STORAGE, dicom_bytes, dicom_header, grey_file
from medimageparse_client import Client
from medimageparse_client.cli import main
from medimageparse_client.cli.segment_image import image_table
from medimageparse_client.formats.mha import encode_mha
from medimageparse_client.formats.nrrd import encode_nrrd
from medimageparse_client.results.report import ImageFacts, facts_of
from PIL import Image


@pytest.fixture
def image_file(tmp_path):
    array = np.zeros((20, 30), np.uint8)
    array[:8, :10] = 250
    path = tmp_path / "xray.png"
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def folder(tmp_path, image_file):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.open(image_file).save(folder / "a.png")
    Image.open(image_file).save(folder / "b.JPG")
    (folder / "notes.txt").write_text("not an image")
    return folder


def names(folder):
    """Of all but the reports, which lie beside the label maps."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".json")


def test_the_command_of_the_readme(triton, image_file, monkeypatch, capsys):
    monkeypatch.chdir(image_file.parent)
    command = ["segment-image", "xray.png", "left lung", "right lung", "-o", "masks.png"]
    assert main([*command, "--preview", "overlay.png", "--report", "report.json"]) == 0
    assert {path.name for path in image_file.parent.iterdir()} == {
        *("masks.png", "overlay.png", "report.json", "xray.png")
    }
    with Image.open("masks.png") as masks:
        assert np.unique(np.asarray(masks)).tolist() == [1, 2]
    with open("report.json", encoding="utf-8") as report:
        assert [described["text"] for described in json.load(report)["prompts"]] == ["left lung", "right lung"]
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split()[0] for line in out.splitlines()] == ["label", "1", "2", "used:", "wrote:"]
    assert out.splitlines()[1].split() == ["1", "0.98", "80", "0.500", "lung", "left", "lung"]
    assert out.splitlines()[2].split() == ["2", "1.00", "520", "-", "lung", "right", "lung"]


def test_options(triton, image_file, tmp_path):
    command = ["segment-image", str(image_file), "lesion", "-o", str(tmp_path / "new" / "masks.npz"), "--force"]
    assert main(command) == 0
    assert main([*command, "--joint", "--image-type", "Dermoscopy"]) == 0
    assert main([*command, "--separate"]) == 0
    plain, joint, separate = triton.requests
    assert (tmp_path / "new" / "masks.npz").exists()
    assert "joint" not in plain
    assert (joint["joint"], joint["image_type"]) == (True, "Dermoscopy")
    assert separate["joint"] is False


def test_recognition(triton, image_file, tmp_path, capsys):
    command = ["segment-image", str(image_file), "--image-type", "X-Ray-Chest", "--p-value-threshold", "0.05"]
    assert main([*command, "-o", str(tmp_path / "masks.png")]) == 0
    sent = triton.requests[0]
    assert "text" not in sent
    assert (sent["image_type"], sent["p_value_threshold"]) == ("X-Ray-Chest", pytest.approx(0.05))
    assert capsys.readouterr().out.splitlines()[-3] == "left out: heart (p-value too low)"


def test_recognition_in_several_files(triton, folder, image_file, tmp_path):
    command = ["segment-image", str(image_file), str(folder / "a.png"), "--image-type", "OCT"]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    assert names(tmp_path / "out") == ["a.png", "xray.png"]
    assert main(["segment-image", str(folder), "--image-type", "OCT", "-o", str(tmp_path / "more")]) == 0
    assert names(tmp_path / "more") == ["a.png", "b.png"]


def test_dicom_in_a_folder_is_known_by_its_content(triton, folder, tmp_path, capsys):
    """Reports and structure sets are called .dcm too; what is damaged is told of."""
    (folder / "c.dcm").write_bytes(grey_file(np.arange(100, dtype=np.uint16).reshape(10, 10)))
    for name, modality in (("report.dcm", "SR"), ("structures.dcm", "RTSTRUCT")):
        left_out = {"Rows": None, "Columns": None, "PixelData": None}
        file = dicom_header(np.zeros((1, 1), np.uint16), Modality=modality, **left_out)
        file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = STORAGE + "88.11"
        (folder / name).write_bytes(dicom_bytes(file))
    (folder / "z.dcm").write_bytes(b"no DICOM")
    assert main(["segment-image", str(folder), "lung", "-o", str(tmp_path / "out")]) == 1
    assert names(tmp_path / "out") == ["a.png", "b.png", "c.png"]
    out, err = capsys.readouterr()
    assert "3 of 4 images segmented" in out
    told = sorted(err.splitlines())
    assert told[0] == f"medimageparse: {folder}/notes.txt and 2 more: no image, left out"
    assert told[1].startswith(f"medimageparse: {folder}/z.dcm: this is not a PNG, JPEG, TIFF, BMP, WebP or DICOM file")
    assert len(told) == 2


@pytest.mark.filterwarnings("always")
def test_the_words_of_pydicom_reach_nobody(triton, tmp_path, capfd):
    path = tmp_path / "slice.dcm"
    pixels = np.arange(100, dtype=np.uint16).reshape(10, 10)
    path.write_bytes(grey_file(pixels, PixelData=pixels.tobytes() + bytes(40)))
    with pytest.warns(UserWarning, match="pixel data"):
        assert pydicom.dcmread(path).pixel_array.shape == (10, 10)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        assert main(["segment-image", str(path), "lung", "-o", str(tmp_path / "masks.png")]) == 0
        with Client() as client:
            client.segment_image(path, "lung")
    assert not raised
    (line,) = capfd.readouterr().err.splitlines()
    assert "40 bytes more" in line


def test_a_window_belongs_to_dicom(triton, image_file, tmp_path, capsys):
    command = ["segment-image", str(image_file), "lung", "-o", str(tmp_path / "masks.png"), "--window", "lung"]
    assert main(command) == 5
    assert "window belongs to CT slices" in capsys.readouterr().err
    assert triton.requests == []


def test_dicom_without_pydicom(triton, tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "medimageparse_client.formats.dicom_slice", raising=False)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    path = tmp_path / "slice.dcm"
    path.write_bytes(bytes(128) + b"DICM")
    assert main(["segment-image", str(path), "nodule", "--window", "lung", "-o", str(tmp_path / "masks.png")]) == 5
    assert "pip install 'medimageparse-client[dicom]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["xray.png", "lung"], "-o"),
        (["xray.png", "b.dcm", "lung", "-o", "out"], "looks like a file"),
        (["xray.png", "heart", "--prompt", "lung", "-o", "out"], "all arguments are folders or .png, .jpg"),
        (["xray.png", "lung", "-o", "masks.nii.gz"], "--output names a .png or .npz file"),
        (["xray.png", "lung", "-o", "masks.png", "--preview", "overlay.jpg"], "--preview names a .png"),
        (["xray.png", "b.png", "--prompt", "lung", "-o", "masks.png"], "for several images --output names a folder"),
        (["xray.png", "x/xray.jpg", "--prompt", "lung", "-o", "out"], "same name"),
        (["xray.png", "b.png", "--prompt", "lung", "-o", "out", "--preview", "out"], "same name"),
        (["xray.png", "lung", "-o", "masks.png", "--preview", "masks.png"], "same name"),
        (["xray.png", "lung", "-o", "xray.png"], "overwrite"),
        (["xray.png", "lung", "-o", "masks.png", "--preview", "."], "overwrite"),
        (["xray.png", "lung", "-o", "masks.png", "--joint", "--separate"], "not allowed with"),
        (["xray.png", "lung", "-o", "masks.png", "--image-type", "photo"], "--image-type"),
        (["xray.png", "lung", "-o", "masks.png", "--window", "bone"], "--window"),
        (["xray.png", "lung", "-o", "masks.png", "--intensity", "auto"], "unrecognized argument: --intensity"),
        (["empty", "lung", "-o", "out"], "holds no image"),
        (["xray.png", "lung", "-o", "masks.png", "--axis", "1"], "name it with --slice"),
        (["xray.png", "lung", "-o", "masks.png", "--time-point", "0"], "name it with --slice"),
        (["ct.nii.gz", "lung", "-o", "masks.png", "--slice", "1", "--axis", "3"], "--axis"),
        (["ct.nii.gz", "lung", "-o", "masks.txt", "--slice", "1"], "--output names a .nii.gz, .nii, .png or .npz file"),
    ],
)
def test_wrong_command_lines(arguments, sentence, triton, image_file, monkeypatch, capsys):
    monkeypatch.chdir(image_file.parent)
    (image_file.parent / "empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        main(["segment-image", *arguments])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
    assert triton.requests == []


@pytest.mark.parametrize(("options", "sent"), [((), None), (("--tile",), True)])
def test_tiles_are_asked_for(options, sent, triton, image_file, tmp_path):
    assert main(["segment-image", str(image_file), "lung", "-o", str(tmp_path / "masks.png"), *options]) == 0
    [request] = triton.requests
    assert request.get("tile") == sent


def write_volume(path):
    voxels = np.random.default_rng(0).integers(-200, 300, (12, 9, 4)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([-1, -1, 3, 1])), path)


def test_a_slice_of_a_volume(triton, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_volume("ct.nii.gz")
    command = ["segment-image", "ct.nii.gz", "liver", "--slice", "2", "--window", "abdomen"]
    assert main([*command, "-o", "masks.nii.gz", "--preview", "overlay.png"]) == 0
    assert names(tmp_path) == ["ct.nii.gz", "masks.nii.gz", "overlay.png"]
    labels = nib.load("masks.nii.gz")
    np.testing.assert_array_equal(labels.affine, nib.load("ct.nii.gz").affine)
    assert np.flatnonzero(np.asarray(labels.dataobj).any((0, 1))).tolist() == [2]
    assert "used: slice 2 along axis 2 (axial) | window abdomen -150..250" in capsys.readouterr().out
    assert main([*command, "--axis", "0", "-o", "masks.png", "--force"]) == 0
    with Image.open("masks.png") as masks:
        assert masks.size == (9, 4)
    assert main(["segment-image", "ct.nii.gz", "liver", "--slice", "4", "-o", "none.png"]) == 5
    assert "there is no slice 4 along axis 2; the last one is 3" in capsys.readouterr().err


def test_a_slice_of_another_volume(triton, tmp_path):
    """Whose axes go to the left, to the back and up, as those of NRRD and MHA do."""
    write_volume(tmp_path / "ct.nii.gz")
    image = nib.load(tmp_path / "ct.nii.gz")
    for name, encode in (("ct.nrrd", encode_nrrd), ("ct.mha", encode_mha)):
        (tmp_path / name).write_bytes(encode(np.asarray(image.dataobj), image.affine))
        command = ["segment-image", str(tmp_path / name), "liver", "--slice", "2", "--window", "abdomen"]
        assert main([*command, "-o", str(tmp_path / f"{name}.nii.gz")]) == 0
        np.testing.assert_allclose(nib.load(tmp_path / f"{name}.nii.gz").affine, image.affine)
    assert triton.images[0] == triton.images[1]


def test_the_slices_of_a_folder_of_volumes(triton, tmp_path, capsys):
    (tmp_path / "scans").mkdir()
    for name in ("a.nii.gz", "b.nii", "c"):
        write_volume(tmp_path / "scans" / (name if "." in name else "c.nii"))
    (tmp_path / "scans" / "c.nii").rename(tmp_path / "scans" / "c")
    Image.new("L", (4, 4)).save(tmp_path / "scans" / "d.png")
    command = ["segment-image", str(tmp_path / "scans"), "liver", "--slice", "0", "--window", "lung"]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    assert names(tmp_path / "out") == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    assert "d.png: no volume, left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("report", "line"),
    [
        ({}, "used: intensity percentile 12..300.5"),
        (
            {"dicom": {"window": "lung", "bounds": [-1000, 1000], "inverted": False}},
            "used: DICOM window lung -1000..1000",
        ),
        (
            {"dicom": {"window": None, "bounds": [3.0, 4000.0], "inverted": True}},
            "used: DICOM window percentile 3..4000 | inverted",
        ),
        (
            {"slice": {"number": 4, "axis": 0, "plane": "sagittal", "window": None, "bounds": [1, 9.5]}},
            "used: slice 4 along axis 0 (sagittal) | window percentile 1..9.5",
        ),
    ],
)
def test_the_table_says_what_was_used(report, line):
    image = {"exif_orientation": 1, "intensity": {"used": "percentile", "bounds": [12.0, 300.5]}}
    facts = facts_of({"prompts": [], "rejected": [], "image": image} | report, ImageFacts)
    assert image_table(SimpleNamespace(labels={}, facts=facts)).splitlines()[-1] == line
