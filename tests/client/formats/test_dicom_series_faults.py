"""What is no regular volume of grey slices is refused by name; other readers answer most of these in silence."""

import io
import zipfile

import numpy as np
import pydicom
import pytest
from helpers.dicom_series import DIRECTIONS, MR, ORIGIN, SHAPE, SPACING, make_series, phantom, save_series
from medimageparse_client import InvalidVolume
from medimageparse_client.formats.dicom_series import files, read_series
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

N = SHAPE[2]
SECRETS = "Doe", "Jane", "4711", "secret", "1970"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def tilted(degrees=11.5, **tags):
    shift = np.tan(np.radians(degrees)) * SPACING[2]
    places = [[ORIGIN[0], ORIGIN[1] + shift * z, ORIGIN[2] + SPACING[2] * z] for z in range(N)]
    return make_series(ImagePositionPatient=places, **tags)


def jumping():
    places = [[ORIGIN[0] + 3 * (z % 2), ORIGIN[1], ORIGIN[2] + SPACING[2] * z] for z in range(N)]
    return make_series(ImagePositionPatient=places)


def two_kinds(**tags):
    """A series of which three slices differ."""
    first = make_series(SeriesInstanceUID="1.2.3", FrameOfReferenceUID="1.2.4")
    return first[:5] + make_series(**{"SeriesInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"} | tags)[5:]


def doubled(**tags):
    return two_volumes(**tags)[: N + 1]


def two_volumes(first=None, second=None, **tags):
    same = {"SeriesInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"} | tags
    return make_series(**same | (first or {})) + make_series(phantom() + 500, **same | (second or {}))


def made_without(*missing):
    return [one for z, one in enumerate(make_series()) if z not in missing]


ALONG = np.arange(N) * SPACING[2]
FAULTS = {
    "missing": (
        lambda: [one for z, one in enumerate(make_series()) if z != 3],
        r"missing slices: 1, after 105\.00 mm",
    ),
    "missing two": (lambda: made_without(2, 5), r"missing slices: 2, after 102\.50, 110\.00 mm.*--allow-gaps"),
    "uneven": (lambda: make_series(positions=ALONG + [0, 0, 0.8, 0, 0, 0, 0, 0]), r"1\.70 to 3\.30 mm apart, unevenly"),
    "doubled": (doubled, r"doubled slices: 1.*at 100\.00 mm"),
    "all doubled": (two_volumes, "each of 8 places has 2, and no tag says"),
    "tilted": (tilted, r"tilted by 11\.5 degrees.*--resample-tilt"),
    "tilted the other way": (lambda: tilted(-20), r"tilted by 20\.0 degrees"),
    "jumping": (jumping, "shifted against each other"),
    "two orientations": (
        lambda: two_kinds(ImageOrientationPatient=list(DIRECTIONS["coronal"])),
        "different orientations: 3 of 8",
    ),
    "two orientations, as many of each": (
        lambda: two_volumes(second={"ImageOrientationPatient": list(DIRECTIONS["coronal"])}),
        "different orientations: 8 of 16",
    ),
    "two sizes": (lambda: two_kinds(values=phantom((20, 20, 8))), "different sizes in pixels: 3 of 8"),
    "two pixel spacings": (lambda: two_kinds(PixelSpacing=[0.5, 0.5]), "different pixel spacings: 3 of 8"),
    "two frames of reference": (lambda: two_kinds(FrameOfReferenceUID=generate_uid()), "different frames of reference"),
    "no spacing": (lambda: make_series(PixelSpacing=None), "how large their pixels are"),
    "spacing 0": (lambda: make_series(PixelSpacing=[0, 1]), "how large their pixels are"),
    "no position": (lambda: make_series(ImagePositionPatient=None), "do not say where they lie"),
    "no orientation": (lambda: make_series(ImageOrientationPatient=None), "do not say where they lie"),
    "a crooked orientation": (lambda: make_series(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "right angle"),
    "a position of two numbers": (lambda: make_series(ImagePositionPatient=[1, 2]), "ImagePositionPatient is not 3"),
    "one slice": (lambda: make_series()[:1], "one slice.*segment-image"),
    "colour": (lambda: make_series(PhotometricInterpretation="RGB", SamplesPerPixel=3), r"pictures in colour \(8\)"),
    "secondary capture": (
        lambda: make_series(SOPClassUID=SECONDARY_CAPTURE),
        r"secondary captures \(8\).*original",
    ),
    "localizers only": (lambda: make_series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), r"localizers \(8\)"),
    "radiographs": (lambda: make_series(Modality="DX"), r"radiographs \(8\).*segment-image"),
    "a segmentation": (lambda: make_series(Modality="SEG"), r"segmentations or doses \(8\)"),
    "CT without rescale": (lambda: make_series(RescaleSlope=None), "no rescale tags"),
    "CT of one slice without rescale": (lambda: make_series(RescaleSlope=[1] * 7 + [None]), "no rescale tags"),
    "CT in other units": (lambda: make_series(RescaleType="Z_EFF"), "not Hounsfield units"),
    "slope 0": (lambda: make_series(RescaleSlope=0), "RescaleSlope is 0"),
    "frames without places": (lambda: make_series(NumberOfFrames=2)[:1], "2 frames that do not say where they lie"),
    "two series": (
        lambda: make_series() + make_series(**MR, SeriesNumber=2),
        r"2 series.*--series.*1: CT, slices: 8.*2: MR.*description: 18",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_nothing_of_the_patient(name, tmp_path):
    make, sentence = FAULTS[name]
    with pytest.raises(InvalidVolume, match=sentence) as caught:
        read_series(save_series(make(), tmp_path))
    assert not [secret for secret in SECRETS if secret in str(caught.value)]


def test_gaps_are_taken_where_they_are_allowed_and_said(tmp_path):
    made = make_series()
    series = read_series(save_series(made[:3] + made[4:], tmp_path), allow_gaps=True)
    np.testing.assert_array_equal(np.asarray(series.volume.dataobj), np.delete(phantom(), 3, axis=2))
    [note] = series.notes
    assert "nothing was interpolated" in note
    # both ends lie where they did
    np.testing.assert_allclose((series.volume.affine @ [0, 0, 6, 1])[:3], [30, -20, 117.5])


@pytest.mark.parametrize("degrees", [11.5, -11.5])
def test_a_tilt_is_taken_out_where_that_is_asked(degrees, tmp_path):
    """The values are a function of the place in the patient, which linear interpolation keeps."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    shift = np.tan(np.radians(degrees)) * SPACING[2]
    values = (4 * x + 3 * (SPACING[1] * y + shift * z) + 10 * z).astype(np.float32)
    series = read_series(
        save_series(tilted(degrees, values=np.rint(values).astype(np.int16)), tmp_path), resample_tilt=True
    )
    affine = series.volume.affine
    sides = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(sides.T @ sides, np.eye(3), atol=1e-6)
    voxels = np.asarray(series.volume.dataobj)
    assert series.is_resampled
    assert "tilted" in series.notes[0]
    checked = 0
    for index in np.ndindex(*voxels.shape):
        place = np.diag([-1, -1, 1, 1]) @ affine @ [*index, 1]
        mm = place[:3] - ORIGIN
        k = round(mm[2] / SPACING[2])
        row = (mm[1] - shift * k) / SPACING[1]
        if 0 <= row <= SHAPE[1] - 1:
            assert voxels[index] == pytest.approx(4 * mm[0] / SPACING[0] + 3 * mm[1] + 10 * k, abs=1.1)
            checked += 1
    assert checked >= 0.9 * np.prod((SHAPE[0], SHAPE[1] - 1, SHAPE[2]))


@pytest.mark.parametrize(
    "tags",
    [
        {"EchoTime": (80, 20)},
        {"TemporalPositionIdentifier": (2, 1)},
        {"DiffusionBValue": (1000, 0)},
        {"AcquisitionNumber": (5, 4)},
        {"ImageType": (["ORIGINAL", "PRIMARY", "W"], ["ORIGINAL", "PRIMARY", "F"])},
    ],
    ids=lambda tags: next(iter(tags)),
)
def test_of_several_volumes_in_a_series_one_is_chosen(tags, tmp_path):
    [(name, (first, second))] = tags.items()
    folder = save_series(two_volumes({name: first}, {name: second}), tmp_path)
    with pytest.raises(InvalidVolume, match=f"2 volumes that differ in {name}.*--time-point"):
        read_series(folder)
    for time_point, values in enumerate((phantom() + 500, phantom())):
        series = read_series(folder, time_point=time_point)
        np.testing.assert_array_equal(np.asarray(series.volume.dataobj), values)
    with pytest.raises(InvalidVolume, match="no time point 2; the last one is 1"):
        read_series(folder, time_point=2)


def test_what_lies_beside_the_series_is_left_out_and_said(tmp_path):
    made = make_series(SeriesInstanceUID="1.2.3")
    survey = make_series(SeriesInstanceUID="1.2.3", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])[:2]
    save_series(made + survey + make_series(Modality="SEG")[:1], tmp_path / "DICOM" / "S1")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / ".hidden").write_bytes(bytes(128) + b"DICM")
    series = read_series(tmp_path)
    np.testing.assert_array_equal(np.asarray(series.volume.dataobj), phantom())
    assert series.notes == (
        "left out: files that are not DICOM (1)",
        "left out: localizers (2), segmentations or doses (1)",
    )


def test_a_series_is_chosen_by_number_or_uid(tmp_path):
    first, second = make_series(SeriesNumber=7), make_series(**MR, SeriesNumber=2)
    folder = save_series(first + second, tmp_path)
    uid = first[0].SeriesInstanceUID
    assert [read_series(folder, series=wanted).modality for wanted in (1, "2", uid)] == ["MR", "CT", "CT"]
    assert read_series(folder, series=1).notes == ("left out: other series (1)",)
    with pytest.raises(InvalidVolume, match="no series of this number or UID.*1: MR, slices: 8"):
        read_series(folder, series=3)


def zipped(entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return file.getvalue()


def test_a_zip_is_read_where_it_lies_and_its_names_lead_nowhere(tmp_path):
    folder = save_series(make_series(), tmp_path / "series")
    data = zipped((f"../../{path.name}", path.read_bytes()) for path in folder.iterdir())
    (tmp_path / "x.zip").write_bytes(data)
    before = sorted(tmp_path.parent.rglob("*"))
    for source in (data, tmp_path / "x.zip"):
        np.testing.assert_array_equal(np.asarray(read_series(source).volume.dataobj), phantom())
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize(("limit", "value"), [("MAX_FILES", 7), ("MAX_BYTES", 1000)])
def test_what_is_read_is_bounded(limit, value, tmp_path, monkeypatch):
    folder = save_series(make_series(), tmp_path)
    data = zipped((path.name, path.read_bytes()) for path in folder.iterdir())
    monkeypatch.setattr(files, limit, value)
    for source in (data, folder):
        with pytest.raises(InvalidVolume, match="are read; give one series alone"):
            read_series(source)


def test_a_deflated_file_that_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    header = make_series()[0]
    header.PixelData = bytes(10**7)
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    file = io.BytesIO()
    pydicom.dcmwrite(file, header, enforce_file_format=True)
    assert len(file.getvalue()) < 10**5
    monkeypatch.setattr(files, "MAX_BYTES", 10**6)
    monkeypatch.setattr(pydicom, "dcmread", None)
    with pytest.raises(InvalidVolume, match="are read; give one series alone"):
        read_series(file.getvalue())


def test_slices_that_say_they_are_huge_are_not_decoded(tmp_path):
    with pytest.raises(InvalidVolume, match="60000 x 60000 x 8 voxels"):
        read_series(save_series(make_series(Rows=60000, Columns=60000), tmp_path))


def test_broken_zips_are_called_so(tmp_path):
    data = zipped((str(z), b"\0" * 128 + b"DICM" + bytes(100)) for z in range(3))
    with pytest.raises(InvalidVolume, match="damaged or cut short"):
        read_series(data[:200])
    locked = data.replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0")
    with pytest.raises(InvalidVolume, match="encrypted"):
        read_series(locked)
    with pytest.raises(InvalidVolume, match="no DICOM file"):
        read_series(zipped([("a.txt", b"a")]))


def test_a_slice_that_is_cut_short_is_told(tmp_path):
    folder = save_series(make_series(), tmp_path)
    path = next(folder.iterdir())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidVolume, match=r"damaged or cut short; give the series again"):
        read_series(folder)
