"""A DICOM series goes to the server as a volume without a word of the patient; masks come back in its voxels."""

import json
import shutil
import sys
from io import BytesIO

import numpy as np
import pydicom
import pytest
from helpers.dicom_series import MR, PET, affine_of, enhanced, group, make_series, save_series
from medimageparse_client import Client, InvalidRequest, InvalidVolume
from medimageparse_client.cli import main
from medimageparse_client.formats.body_part import REGIONS, SHOWN
from medimageparse_client.formats.dicom_header import without_pydicoms_warnings
from medimageparse_client.formats.dicom_series import read_series
from medimageparse_client.formats.series_input import open_series
from medimageparse_contract.catalogue import presets, structures
from pydicom.sr.codedict import codes

SECRETS = b"Doe", b"Jane", b"4711", b"secret", b"1970", b"abdomen"


@pytest.fixture
def labels():
    """The stand-in for a server finds label k where a voxel is k."""
    values = np.zeros((24, 20, 8), np.int16)
    values[3:12, 2:8, 1:6] = 1
    values[14:20, 10:18, 4:7] = 2
    return values


@pytest.fixture
def folder(labels, tmp_path):
    return save_series(make_series(labels, "oblique")[::-1], tmp_path / "series")


def test_masks_come_back_in_the_voxels_and_places_of_the_series(triton, folder, labels):
    with Client() as client:
        result = client.segment(folder, ["liver", "spleen"])
        again = client.segment(read_series(folder), ["liver", "spleen"])
    np.testing.assert_array_equal(result.label_map, labels)
    np.testing.assert_array_equal(again.label_map, labels)
    np.testing.assert_allclose(result.affine, affine_of("oblique"), atol=1e-5)
    assert len(result.series.sources) == 8
    assert result.report["dicom"] == {
        "modality": "CT",
        "slices": 8,
        "intensity": "ct-soft-tissue",
        "intensity_by": "modality",
        "resampled": False,
    }


def test_nothing_of_the_patient_is_sent(triton, folder):
    with Client() as client:
        result = client.segment(folder, "liver")
    assert not [secret for secret in SECRETS if secret in result.volume]
    assert not [secret for secret in SECRETS if secret in json.dumps(result.report).encode()]


@pytest.mark.parametrize(
    ("tags", "asked", "used"),
    [({}, "auto", "ct-soft-tissue"), ({}, "ct-lung", "ct-lung"), (MR, "auto", "percentile"), (MR, "none", "none")],
)
def test_grey_follows_the_modality_unless_told(tags, asked, used, triton, labels, tmp_path):
    with Client() as client:
        client.segment(save_series(make_series(labels, **tags), tmp_path / "s"), "liver", intensity=asked)
    assert triton.requests[-1]["intensity"] == used


@pytest.mark.parametrize(
    ("tags", "sets"),
    [
        ({}, "ct-abdomen"),
        ({"BodyPartExamined": "Chest Abd Pelvis"}, "ct-thorax & ct-abdomen"),
        ({"BodyPartExamined": "CHESTABDPELVIS"}, "ct-thorax & ct-abdomen"),
        ({"BodyPartExamined": "ABDOMEN_PELVIS"}, "ct-abdomen"),
        ({"BodyPartExamined": "KNEE"}, None),
        ({"BodyPartExamined": None}, None),
        (MR | {"BodyPartExamined": "HEART"}, "mr-heart"),
        (MR | {"BodyPartExamined": "HEAD"}, None),
        (PET, None),
    ],
)
def test_the_preset_auto_follows_modality_and_body_part(tags, sets, triton, labels, tmp_path, caplog):
    with without_pydicoms_warnings():  # it warns of what a CS may not hold
        folder = save_series(make_series(labels, **{"BodyPartExamined": "ABDOMEN"} | tags), tmp_path / "s")
    with Client() as client:
        if sets is None:
            with pytest.raises(InvalidRequest, match="name a preset") as refusal:
                client.segment(folder, preset="auto")
            assert not [word for word in ("chest", "knee") if word in str(refusal.value).lower()]
            return
        report = client.segment(folder, preset="auto").report["dicom"]
        told = client.segment(folder, preset="CT-Spine").report["dicom"]
    assert triton.requests[0]["preset"] == report["preset"] == sets
    assert report["preset_by"] == "modality and body part"
    assert (told["preset"], told["preset_by"]) == ("CT-Spine", "caller")
    assert caplog.records == []


ODD = {
    "PatientID": "4711" * 20,
    "AccessionNumber": "secret" * 9,
    "StudyDate": "1st of May",
    "StudyTime": "noon, secret",
    "PatientSex": "female, Jane",
    "PatientBirthDate": "x1970",
    "PatientName": "Jane" * 30,
    "StudyID": "secret" * 9,
    "SeriesNumber": ("LO", "secret"),
    "BodyPartExamined": "the heart of Jane",
}


@pytest.mark.parametrize("ending", [".seg.dcm", ".rtstruct.dcm"])
@pytest.mark.parametrize("tags", [ODD, *({name: value} for name, value in ODD.items())], ids=["all", *ODD])
def test_odd_tags_of_a_patient_are_left_empty_and_told_nowhere(tags, ending, triton, labels, tmp_path, caplog):
    with without_pydicoms_warnings():
        folder = save_series(make_series(labels, **tags), tmp_path / "s")
    with Client() as client:
        made = pydicom.dcmread(BytesIO(client.segment(folder, "liver").to_bytes(ending)))
    assert caplog.records == []
    for name in ("StudyDate", "StudyTime", "PatientBirthDate", "PatientSex"):
        if name in tags:
            assert not made[name].value


@pytest.mark.parametrize("ending", [".seg.dcm", ".rtstruct.dcm"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("StudyInstanceUID", None),
        ("SeriesInstanceUID", None),
        ("FrameOfReferenceUID", None),
        ("SOPClassUID", "1.2.secret"),
        ("SOPInstanceUID", ("LO", "")),
    ],
)
def test_a_series_that_cannot_be_referred_to_is_refused_by_name(name, value, ending, triton, labels, tmp_path, caplog):
    with without_pydicoms_warnings():
        series = make_series(labels)
        for header in series:
            if value is None:
                del header[name]
            elif isinstance(value, tuple):
                header.add_new(pydicom.datadict.tag_for_keyword(name), *value)
            else:
                header[name].value = value
        folder = tmp_path / "s"
        folder.mkdir()
        for number, header in enumerate(series):
            header.save_as(folder / f"{number}.dcm")
    with Client() as client:
        result = client.segment(folder, "liver")
    with pytest.raises(InvalidRequest, match=r"save \.nii\.gz") as refusal:
        result.to_bytes(ending)
    assert "secret" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert caplog.records == []


@pytest.mark.parametrize("is_in_frames", [False, True])
def test_the_body_part_of_an_enhanced_file_is_its_region(is_in_frames, triton, labels, tmp_path):
    file = enhanced(make_series(labels))
    file.pop("BodyPartExamined", None)
    region = group(CodeValue="816094009", CodingSchemeDesignator="SCT", CodeMeaning="Chest")
    place = file.SharedFunctionalGroupsSequence[0] if is_in_frames else file
    if is_in_frames:
        place.FrameAnatomySequence = [group(AnatomicRegionSequence=region)]
    else:
        place.AnatomicRegionSequence = [region]
    with Client() as client:
        client.segment(save_series([file], tmp_path / "s"), preset="auto")
    assert triton.requests[-1]["preset"] == "ct-thorax"


def test_the_sets_of_body_parts_exist_and_their_codes_are_dicoms():
    assert set(SHOWN) <= set(presets("3d"))
    concepts = (getattr(codes.cid4031, name) for name in dir(codes.cid4031) if name[0].isupper())
    meanings = {concept.value: concept.meaning.upper() for concept in concepts}
    for value, part in REGIONS.items():
        if value not in ("113345001", "51185008"):  # of before 2019
            letters = iter(meanings[value])
            assert all(letter in letters for letter in part), (part, meanings[value])


def test_the_command_looks_for_what_a_series_shows(triton, labels, tmp_path, capsys):
    many = tmp_path / "many"
    save_series(make_series(labels, BodyPartExamined="ABDOMEN"), many / "a")
    save_series(make_series(labels, BodyPartExamined="LSPINE"), many / "b")
    asked = ["segment", str(many), "--preset", "auto", "--recursive", "-o", str(tmp_path / "out")]
    assert main([*asked, "--statistics", str(tmp_path / "s.csv")]) == 0
    assert sorted(request["preset"] for request in triton.requests) == ["ct-abdomen", "ct-spine"]
    report = json.loads((tmp_path / "out" / "a.json").read_text())
    assert [row["text"] for row in report["prompts"]] == [row.prompt for row in structures("3d", preset="ct-abdomen")]
    with pytest.raises(SystemExit, match="2"):
        main([*asked, "--label-table", str(tmp_path / "t.ctbl")])
    assert "not auto" in capsys.readouterr().err


def test_the_preset_auto_is_for_series(triton, volume_file):
    with Client() as client, pytest.raises(InvalidRequest, match="auto is for DICOM series"):
        client.segment(volume_file, preset="auto")


def test_the_command_takes_a_folder_a_zip_and_folders_of_series(triton, folder, labels, tmp_path, capsys):
    (folder / "readme.txt").write_text("x")
    assert main(["segment", str(folder), "liver", "spleen", "-o", str(tmp_path / "one.nii.gz")]) == 0
    assert "left out: files that are not DICOM (1)" in capsys.readouterr().err
    report = json.loads((tmp_path / "one.json").read_text())
    assert report["dicom"]["modality"] == "CT"
    archive = shutil.make_archive(str(tmp_path / "x"), "zip", folder)
    assert main(["segment", archive, "liver", "-o", str(tmp_path / "two.nii.gz")]) == 0
    many = tmp_path / "many"
    save_series(make_series(labels), many / "a")
    save_series(make_series(labels), many / "b")
    assert main(["segment", str(many), "liver", "-o", str(tmp_path / "three.nii.gz")]) == 5
    assert "there are 2 series; choose one" in capsys.readouterr().err
    assert main(["segment", str(many), "liver", "-o", str(tmp_path / "three.nii.gz"), "--series", "2"]) == 0
    assert main(["segment", str(many), "liver", "--recursive", "-o", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz"]


@pytest.mark.parametrize(
    ("missing", "source"),
    [("pydicom", None), ("dicomweb_client.api", "dicomweb://pacs/studies/1.2/series/1.3")],
)
def test_without_the_extra_the_command_to_install_it_is_told(missing, source, folder, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("medimageparse_client.formats.dicom")]:
        if not name.endswith("dicomweb_address"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InvalidVolume, match=r"not installed: pip install 'medimageparse-client\[dicom\]'"):
        open_series(source or folder, series=None, time_point=None, allow_gaps=False, resample_tilt=False)


def test_a_choice_of_series_belongs_to_dicom(triton, volume_file):
    with Client() as client, pytest.raises(InvalidVolume, match="this volume is none"):
        client.segment(volume_file, "liver", series=1)
    assert triton.requests == []


def test_the_command_writes_an_rtstruct_by_its_ending(triton, folder, tmp_path):
    out = tmp_path / "out.rtstruct.dcm"
    for options in ([], ["--overlap"]):
        assert main(["segment", str(folder), "liver", "spleen", "-o", str(out), *options, "--force"]) == 0
        assert [roi.ROIName for roi in pydicom.dcmread(out).StructureSetROISequence] == ["Liver", "Spleen"]


def test_the_command_writes_a_seg_by_its_ending(triton, folder, labels, tmp_path, capsys):
    out = tmp_path / "out.seg.dcm"
    for options, seg_type, overlap in (
        ([], "BINARY", "NO"),
        (["--overlap"], "BINARY", "YES"),
        (["--seg-type", "labelmap"], "LABELMAP", "NO"),
        (["--seg-type", "fractional"], "FRACTIONAL", "UNDEFINED"),
    ):
        assert main(["segment", str(folder), "liver", "spleen", "-o", str(out), *options, "--force"]) == 0
        seg = pydicom.dcmread(out)
        assert (seg.SegmentationType, seg.SegmentsOverlap) == (seg_type, overlap)
        assert [one.SegmentLabel for one in seg.SegmentSequence][-2:] == ["Liver", "Spleen"]
    assert (tmp_path / "out.json").is_file()
    told = capsys.readouterr()
    assert not [secret for secret in SECRETS if secret.decode() in told.out + told.err]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "out.seg.dcm", "--resample-tilt"], "not those of the slices"),
        (["-o", "out.rtstruct.dcm", "--resample-tilt"], "not those of the slices"),
        (["-o", "out.nii.gz", "--overlap"], "--overlap is for -o .seg.nrrd, .seg.dcm or"),
        (
            ["-o", "out.seg.dcm", "--overlap", "--seg-type", "labelmap"],
            "--overlap is for -o .seg.nrrd, .seg.dcm or",
        ),
        (["-o", "out.rtstruct.dcm", "--seg-type", "labelmap"], "--seg-type is for -o NAME.seg.dcm and --store"),
        (["-o", "out.dcm"], "names a .nii.gz, .nii, .seg.nrrd, .nrrd, .mha, .seg.dcm or"),
    ],
)
def test_options_of_dicom_objects_are_refused_where_none_is_written(
    options, words, triton, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["segment", str(folder), "liver", *options])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert not triton.requests


@pytest.mark.parametrize("name", ["out.seg.dcm", "OUT.RTSTRUCT.DCM"])
def test_a_dicom_object_of_what_is_no_series_is_refused_before_it_is_sent(name, triton, volume_file, tmp_path, capsys):
    assert main(["segment", str(volume_file), "liver", "-o", str(tmp_path / name)]) == 5
    assert "refers to the slices of a series" in capsys.readouterr().err
    assert not triton.requests
