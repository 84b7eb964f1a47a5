"""Left and right: the rule as a table of headers, and 200 seeded headers read by nibabel and ITK too."""

import gzip
import itertools
import json
import logging
import re
from dataclasses import asdict

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from medimageparse_client.formats.voxels import decode_voxels
from medimageparse_client.results import preview
from medimageparse_client.results.preview import draw_preview
from medimageparse_serving.volume.affines import SHEARED
from medimageparse_serving.volume.nifti_geometry import QUATERNION_ROUNDING, read_geometry
from medimageparse_serving.volume.nifti_masks import encode_nifti, restore_labels
from medimageparse_serving.volume.nifti_volume import Limits, Options, decode_volume
from medimageparse_serving.volume.report import Segmented, box_in_mm, build_report, describe_prompts
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

LIMITS = Limits(max_image_bytes=10**6, max_decompressed_bytes=10**6, max_voxels=10**5, max_side=100, max_slices=100)
SHAPE = (4, 5, 6)
NAN, INF = float("nan"), float("inf")
SROWS = ("srow_x", "srow_y", "srow_z")
NUMBERS = ("quatern_b", "quatern_c", "quatern_d")
AXIS_CODES = [
    "".join(codes) for order in itertools.permutations(["LR", "PA", "IS"]) for codes in itertools.product(*order)
]
# 2 x 3 x 4 mm: an sform that says LPS and a qform that says RPI
ODD_ZOOMS = [0, NAN, -2.0, INF, 1e30, 1e-40]
ZOOMS = {"pixdim": [1, 2, 3, 4, 0, 0, 0, 0]}
SFORM = {"sform_code": 1, "srow_x": [-2, 0, 0, 10], "srow_y": [0, -3, 0, 20], "srow_z": [0, 0, 4, 30]}
QFORM = {"qform_code": 1, "quatern_b": 1, "qoffset_x": 7, "qoffset_y": 8, "qoffset_z": 9}
SAME_QFORM = {"qform_code": 1, "quatern_d": 1, "qoffset_x": 10, "qoffset_y": 20, "qoffset_z": 30}
NO_SFORM = {"sform_code": 1, "srow_x": 0, "srow_y": 0, "srow_z": 0}
TILTED = {"sform_code": 1, "srow_x": [-2, 0, 0, 10], "srow_y": [0, 3, 1.5, 20], "srow_z": [0, 0, 3.708, 30]}
# turned by 44.5 and by 45.5 degrees: RAS and ALS
AT_44 = {"sform_code": 1, "srow_x": [0.7133, -0.7009, 0, 0], "srow_y": [0.7009, 0.7133, 0, 0], "srow_z": [0, 0, 1, 0]}
AT_45 = {"qform_code": 1, "quatern_d": 0.38671, "pixdim": [1, 1, 1, 1, 0, 0, 0, 0]}

UNKNOWN = "left and right are not known"
CASES = {
    # name: (fields, source, sides, sentences of the warnings in order)
    "sform": (SFORM, "sform", "LPS", []),
    "sform beside the same qform": (SFORM | SAME_QFORM, "sform", "LPS", []),
    "sform beside a qform of other sides": (SFORM | QFORM, "sform", "LPS", [r"code 1\) that says LPS .* says RPI"]),
    "template beside scanner": (
        SFORM | QFORM | {"sform_code": 4},
        "sform",
        "LPS",
        [r"code 4\).*code 1\).*sform is used"],
    ),
    "almost the same at 45 degrees": (AT_44 | AT_45, "sform", "RAS", []),
    "the second of these alone": (AT_45, "qform", "ALS", []),
    "qform": (QFORM, "qform", "RPI", []),
    "qform beside rows without a code": (QFORM | SFORM | {"sform_code": 0}, "qform", "RPI", []),
    "singular sform beside a qform": (QFORM | NO_SFORM, "qform", "RPI", ["unusable sform"]),
    "sform with an empty row beside a qform": (QFORM | SFORM | {"srow_x": 0}, "qform", "RPI", ["unusable sform"]),
    "sform with two parallel axes": (QFORM | SFORM | {"srow_y": [1, 0, 0, 0]}, "qform", "RPI", ["unusable sform"]),
    "sform of NaN beside a qform": (QFORM | SFORM | {"srow_z": NAN}, "qform", "RPI", ["unusable sform"]),
    "sform of infinity beside a qform": (
        QFORM | SFORM | {"srow_z": [0, 0, INF, 0]},
        "qform",
        "RPI",
        ["unusable sform"],
    ),
    "sform out of reach beside a qform": (
        QFORM | SFORM | {"srow_z": [0, 0, 1e9, 0]},
        "qform",
        "RPI",
        ["unusable sform"],
    ),
    "sheared sform beside a qform": (QFORM | TILTED, "qform", "RPI", ["sheared sform beside a valid qform"]),
    "sheared sform": (TILTED, "sform", "LAS", ["tilted gantry"]),
    "sheared sform beside a qform of NaN": (TILTED | QFORM | {"quatern_c": NAN}, "sform", "LAS", ["tilted gantry"]),
    "sform of a registration": (SFORM | {"srow_x": [-2, 0.06, 0.1, 10]}, "sform", "LPS", []),
    "sform beside a qform of NaN": (SFORM | QFORM | {"quatern_b": NAN}, "sform", "LPS", []),
    "sform of other voxels than the zooms": (SFORM | {"pixdim": [1, 2, 3, 5, 0, 0, 0, 0]}, "sform", "LPS", ["zooms"]),
    # codes
    "negative sform code": (SFORM | QFORM | {"sform_code": -1}, "qform", "RPI", []),
    "unknown sform code": (SFORM | {"sform_code": 99}, "sform", "LPS", []),
    "unknown qform code": (QFORM | {"qform_code": 99}, "qform", "RPI", []),
    "negative codes": (SFORM | QFORM | {"sform_code": -1, "qform_code": -2}, "pixdim", "LAS", [UNKNOWN]),
    # quaternions
    "quaternion of 1.000001": (QFORM | {"quatern_b": 1.000001}, "qform", "RPI", []),
    "quaternion in three decimals": (QFORM | {"quatern_b": 0.268, "quatern_d": 0.964}, "qform", "LPS", []),
    "quaternion in two decimals": (QFORM | {"quatern_b": 0.71, "quatern_c": 0.71}, "qform", "ARI", []),
    "quaternion of 1.02": (QFORM | {"quatern_b": 1.02}, "pixdim", None, [UNKNOWN]),
    "quaternion of infinity": (QFORM | {"quatern_b": INF}, "pixdim", None, [UNKNOWN]),
    "quaternion of NaN": (QFORM | {"quatern_d": NAN}, "pixdim", None, [UNKNOWN]),
    # qfac and zooms
    "qfac of 0": (QFORM | {"pixdim": [0, 2, 3, 4, 0, 0, 0, 0]}, "qform", "RPI", []),
    "qfac of NaN": (QFORM | {"pixdim": [NAN, 2, 3, 4, 0, 0, 0, 0]}, "qform", "RPI", []),
    "qfac of -1": (QFORM | {"pixdim": [-1, 2, 3, 4, 0, 0, 0, 0]}, "qform", "RPS", []),
    "qfac of 3": (QFORM | {"pixdim": [3, 2, 3, 4, 0, 0, 0, 0]}, "qform", "RPI", []),
    "qfac of -3": (QFORM | {"pixdim": [-3, 2, 3, 4, 0, 0, 0, 0]}, "qform", "RPI", ["qfac.*not sure"]),
    "qfac of -3, not used": (SFORM | {"pixdim": [-3, 2, 3, 4, 0, 0, 0, 0]}, "sform", "LPS", []),
    "negative zoom": (QFORM | {"pixdim": [1, -2, 3, 4, 0, 0, 0, 0]}, "qform", "RPI", ["negative zooms"]),
    "negative zoom, not used": (SFORM | {"pixdim": [1, -2, 3, 4, 0, 0, 0, 0]}, "sform", "LPS", []),
    "zoom of 0": (QFORM | {"pixdim": [1, 0, 3, 4, 0, 0, 0, 0]}, "qform", "RPI", ["millilitres are not known"]),
    "zoom next to 0": (QFORM | {"pixdim": [1, 1e-40, 3, 4, 0, 0, 0, 0]}, "qform", "RPI", ["millilitres are not known"]),
    "zoom of NaN": (QFORM | {"pixdim": [1, NAN, 3, 4, 0, 0, 0, 0]}, "qform", "RPI", ["millilitres are not known"]),
    "zoom of NaN, not used": (SFORM | {"pixdim": [1, NAN, INF, 0, 0, 0, 0, 0]}, "sform", "LPS", []),
    # offsets
    "sform offset of NaN": (SFORM | {"srow_x": [-2, 0, 0, NAN]}, "sform", "LPS", ["positions in mm are not known: 0"]),
    "sform offset out of reach": (
        SFORM | {"srow_x": [-2, 0, 0, 1e30]},
        "sform",
        "LPS",
        ["positions in mm are not known"],
    ),
    "sform offset of NaN beside a qform": (
        SFORM | SAME_QFORM | {"srow_x": [-2, 0, 0, NAN]},
        *("sform", "LPS", ["positions in mm are not known: that of the other form"]),
    ),
    "sform and qform offset of NaN": (
        SFORM | SAME_QFORM | {"srow_x": [-2, 0, 0, NAN], "qoffset_x": INF},
        *("sform", "LPS", ["positions in mm are not known"]),
    ),
    "qform offset of NaN": (QFORM | {"qoffset_y": NAN}, "qform", "RPI", ["offset in its qform"]),
    "qform offset of NaN, not used": (SFORM | SAME_QFORM | {"qoffset_y": NAN}, "sform", "LPS", []),
    # neither
    "no form": ({}, "pixdim", "LAS", [UNKNOWN]),
    "no form and no zooms": ({"pixdim": 0}, "pixdim", "LAS", [UNKNOWN, "millilitres are not known"]),
    "sform next to 0": (NO_SFORM | {"srow_x": [1e-40, 0, 0, 0]}, "pixdim", None, [UNKNOWN]),
    "singular sform": (NO_SFORM, "pixdim", None, [UNKNOWN]),
    "singular sform beside a quaternion of NaN": (NO_SFORM | QFORM | {"quatern_b": NAN}, "pixdim", None, [UNKNOWN]),
    "singular sform and no zooms": (NO_SFORM | {"pixdim": NAN}, "pixdim", None, [UNKNOWN, "millilitres are not known"]),
}


def header_of(fields, kind=Nifti1Header, order="<"):
    header = kind(endianness=order)
    header.set_data_dtype(np.int16)
    header.set_data_shape(SHAPE)
    header["magic"], header["vox_offset"] = (b"n+1", 352) if kind is Nifti1Header else (header["magic"], 544)
    for name, value in (ZOOMS | fields).items():
        header[name] = value
    return header


def file_of(header):
    voxels = np.random.default_rng(0).integers(0, 256, SHAPE).astype(header["dim"].dtype.newbyteorder().type)
    voxels = voxels.astype(header.get_data_dtype())
    return header.binaryblock + bytes(4) + voxels.tobytes("F"), voxels


def answer_of(content):
    """The whole way: volume and geometry; what the networks would find; report as JSON, and answer."""
    volume, geometry = decode_volume(content, Options(intensity="none"), LIMITS)
    labels = (volume > 100).astype(np.uint8)
    segmented = Segmented({}, 1, [0.5], [0], [[]])
    described = describe_prompts(labels, segmented, geometry, ["liver"], np.zeros(1, np.bool_))
    report = build_report(described, geometry, segmented)
    return json.loads(json.dumps(asdict(report), allow_nan=False)), gzip.decompress(
        encode_nifti(restore_labels(labels, geometry), geometry)
    )


def read_by_nibabel(content):
    """The affine; None where nibabel cannot tell."""
    kind = nib.Nifti2Image if content[:4] == (540).to_bytes(4, "little") else nib.Nifti1Image
    logger = logging.getLogger("nibabel.global")
    logger.setLevel(logging.CRITICAL)
    try:
        with np.errstate(all="ignore"):
            affine = np.array(kind.from_bytes(content).affine)
            return affine if np.isfinite(nib.io_orientation(affine)).all() else None
    except ValueError:  # LinAlgError too
        return None
    finally:
        logger.setLevel(logging.NOTSET)


def read_by_itk(content, folder):
    """The affine, turned from ITK's LPS to RAS; None where ITK reads no such file, or never comes back."""
    header = Nifti1Header(content[:348], check=False)
    if header["sform_code"] > 0 and not all(np.isfinite(header[row]).all() for row in SROWS):
        return None
    (folder / "volume.nii").write_bytes(content)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(folder / "volume.nii"))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    axes = np.array(reader.GetDirection()).reshape(3, 3) * reader.GetSpacing()
    return np.diag([-1.0, -1, 1, 1]) @ nib.affines.from_matvec(axes, reader.GetOrigin())


def sides(affine):
    return None if affine is None else "".join(nib.aff2axcodes(affine))


@pytest.fixture(autouse=True)
def quiet_itk():
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    yield
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(True)


@pytest.mark.parametrize("kind", [Nifti1Header, Nifti2Header])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("case", CASES)
def test_the_rule(case, order, kind):
    fields, source, orientation, sentences = CASES[case]
    header = header_of(fields, kind, order)
    before = header.binaryblock
    found = read_geometry(header)
    assert header.binaryblock == before
    assert (found.source, found.stored_orientation) == (source, orientation)
    assert found.sides_known == (source != "pixdim")
    assert np.isfinite(found.affine).all()
    assert len(found.warnings) == len(sentences)
    for warning, sentence in zip(found.warnings, sentences, strict=True):
        assert re.search(sentence, warning)
        assert re.fullmatch("image .{40,290}", warning)
    if source == "pixdim":
        assert "orientation=stored" in found.warnings[0]


@pytest.mark.parametrize("case", CASES)
def test_an_answer_is_read_by_nibabel_and_itk_as_it_was_by_the_server(case, tmp_path):
    content, voxels = file_of(header_of(CASES[case][0]))
    report, answer = answer_of(content)
    image = report["image"]
    labels = decode_voxels(answer)
    assert np.array_equal(labels, voxels > 100)
    assert np.array_equal(decode_voxels(content), voxels)
    by_nibabel, by_itk = read_by_nibabel(answer), read_by_itk(answer, tmp_path)
    if image["stored_orientation"]:
        assert np.array_equal(by_nibabel, image["affine"])
    if case in ("sheared sform", "sheared sform beside a qform of NaN", "sform of a registration"):
        assert by_itk is None  # ITK reads nothing that is sheared
    elif image["sides_known"]:
        of_itk = np.array(image["affine"])
        # of two forms that differ ITK prefers the qform, in the file as in the answer; its sizes are the zooms
        if case == "template beside scanner":
            of_itk = read_by_itk(content, tmp_path)
        if case == "sform of other voxels than the zooms":
            of_itk[:3, 2] *= 5 / 4
        assert by_itk == pytest.approx(of_itk, abs=1e-4)
    assert len(report["warnings"]) == len(CASES[case][3])


@pytest.fixture
def small_tiles(monkeypatch):
    """That previews are drawn is asked, not how: large tiles take most of the time."""
    monkeypatch.setattr(preview, "TILE", 30)


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_millilitres_a_box_and_a_preview(case, small_tiles):
    content, voxels = file_of(header_of(CASES[case][0]))
    report, answer = answer_of(content)
    (liver,) = report["prompts"]
    affine = np.array(report["image"]["affine"])
    assert liver["volume_ml"] == pytest.approx(
        (voxels > 100).sum() * abs(np.linalg.det(affine[:3, :3])) / 1000, abs=1e-6
    )
    assert liver["box_voxels"] == [[0, 0, 0], [3, 4, 5]]
    assert liver["box_mm"] == box_in_mm(liver["box_voxels"], affine)
    known = report["image"]["sides_known"]
    draw_preview(decode_voxels(content), decode_voxels(answer), affine, {1: "liver"}, is_oriented=known)
    if report["image"]["stored_orientation"] is None:  # no side is named: all three run along the stored axes
        zooms = np.diag(affine)[:3]
        assert liver["box_mm"] == [(-zooms / 2).tolist(), (zooms * (np.array(SHAPE) - 0.5)).tolist()]
        assert "stored axes" in report["notes"]["box_mm"]
    assert ("does not say the sides" in report["notes"]["box_mm"]) == (not known)


@pytest.mark.parametrize("case", ["sform", "qform", "template beside scanner", "no form", "sheared sform"])
def test_right_fields_come_back_bit_for_bit(case):
    header = header_of(CASES[case][0] | {"xyzt_units": 3})
    answer = Nifti1Header(answer_of(file_of(header)[0])[1][:348], check=False)
    names = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    for name in (*names, *SROWS, "xyzt_units"):
        assert answer[name].tobytes() == header[name].tobytes(), name
    assert answer["pixdim"][:4].tobytes() == header["pixdim"][:4].tobytes()


def test_what_was_not_usable_does_not_come_back():
    answer = Nifti1Header(
        answer_of(file_of(header_of(CASES["sform of NaN beside a qform"][0]))[0])[1][:348], check=False
    )
    assert int(answer["sform_code"]) == 0
    assert not answer["srow_z"].any()
    answer = Nifti1Header(answer_of(file_of(header_of(CASES["unknown sform code"][0]))[0])[1][:348], check=False)
    assert int(answer["sform_code"]) == 2


@pytest.mark.parametrize(("code", "mm"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (7, 1)])
def test_units_are_taken_into_account(code, mm):
    for fields in (SFORM, QFORM, {}, NO_SFORM):
        affine = read_geometry(header_of(fields)).affine
        assert np.allclose(read_geometry(header_of(fields | {"xyzt_units": code})).affine[:3], mm * affine[:3])


@pytest.mark.parametrize("kind", [Nifti1Header, Nifti2Header])
def test_a_normalised_quaternion_is_a_rotation_by_180_degrees_for_every_reader(kind, tmp_path):
    random = np.random.default_rng(7)
    for _ in range(200):
        axis = random.normal(size=3)
        axis /= np.linalg.norm(axis)
        longer = axis * (1 + random.choice([1e-6, 1e-5, 1e-4, 1e-3, QUATERNION_ROUNDING - 1e-5]))
        header = header_of(
            dict(zip(("quatern_b", "quatern_c", "quatern_d"), longer, strict=True)) | {"qform_code": 1}, kind
        )
        report, answer = answer_of(file_of(header)[0])
        expected = (2 * np.outer(axis, axis) - np.eye(3)) * [2, 3, 4]
        affine = np.array(report["image"]["affine"])
        assert affine[:3, :3] == pytest.approx(expected, abs=1e-5)
        assert np.array_equal(read_by_nibabel(answer), affine)
        if kind is Nifti1Header:  # ITK reads no NIfTI-2
            assert read_by_itk(answer, tmp_path) == pytest.approx(affine, abs=1e-5)


def test_rounding_of_header_types_is_far_below_the_tolerances():
    random = np.random.default_rng(3)
    for _ in range(500):
        turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
        axes = (turn * random.uniform(0.1, 10, 3)).astype(np.float16).astype(np.float64)
        axes /= np.linalg.norm(axes, axis=0)
        assert np.abs(np.triu(axes.T @ axes, 1)).max() < SHEARED / 10
        quaternion = random.normal(size=3)
        quaternion = (quaternion / np.linalg.norm(quaternion)).astype(np.float16).astype(np.float64)
        assert np.linalg.norm(quaternion) < 1 + QUATERNION_ROUNDING / 10


def random_header(number):
    """A header of any kind, right or wrong in up to three ways."""
    random = np.random.default_rng([12, number])

    def some(chance):
        return random.random() < chance

    axes = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(AXIS_CODES[number % 48])
        ),
        (1, 1, 1),
    )
    turn = np.eye(4)
    if some(0.6):
        turn[:3, :3] = nib.eulerangles.euler2mat(*random.uniform(-0.4, 0.4, 3))
    affine = turn @ axes @ np.diag([*random.uniform(0.4, 6, 3), 1])
    affine[:3, 3] = random.uniform(-200, 200, 3)
    header = header_of({})
    header.set_sform(affine, int(random.integers(0, 5)))
    header.set_qform(affine, int(random.integers(0, 5)))
    if some(0.2):  # the other form lies elsewhere
        other = nib.affines.from_matvec(np.diag(random.choice([-1.0, 1], 3)) @ affine[:3, :3], affine[:3, 3])
        header.set_sform(other, int(header["sform_code"]))
    odd = {
        "sheared": lambda: header["srow_x"].__iadd__(random.uniform(-0.8, 0.8) * header["srow_y"]),
        "singular row": lambda: header.__setitem__(random.choice(SROWS), 0),
        "parallel axes": lambda: [header[row].__setitem__(1, 2 * header[row][0]) for row in SROWS],
        "no rows": lambda: [header.__setitem__(row, 0) for row in SROWS],
        "NaN in a row": lambda: header[random.choice(SROWS)].__setitem__(random.integers(4), random.choice([NAN, INF])),
        "NaN in the qform": lambda: header.__setitem__(
            random.choice([*NUMBERS, "qoffset_x", "qoffset_y", "qoffset_z"]), random.choice([NAN, -INF])
        ),
        "longer quaternion": lambda: [
            header.__setitem__(name, value * random.choice([1, 1.000001, 1.001, 1.02, 3]))
            for name, value in zip(NUMBERS, unit(random.normal(size=3)), strict=True)
        ],
        "zoom": lambda: header["pixdim"].__setitem__(
            random.integers(1, 4), random.choice([0, NAN, -2.0, INF, 1e30, 1e-40])
        ),
        "qfac": lambda: header["pixdim"].__setitem__(0, random.choice([0, NAN, 1, -1, 2, -2, INF])),
        "code": lambda: header.__setitem__(random.choice(["sform_code", "qform_code"]), random.choice([-1, 5, 6, 99])),
    }
    for name in random.choice(sorted(odd), random.integers(0, 4), replace=False):
        odd[name]()
    return header


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("number", range(200))
def test_the_sides_of_random_headers_are_those_of_nibabel_or_itk_or_there_is_a_warning(number, tmp_path, small_tiles):
    header = random_header(number)
    content, voxels = file_of(header)
    report, answer = answer_of(content)
    image = report["image"]
    theirs = {sides(read_by_nibabel(content)), sides(read_by_itk(content, tmp_path))} - {None}
    assert image["stored_orientation"] in theirs or report["warnings"]
    assert image["sides_known"] or UNKNOWN in report["warnings"][0]
    # and the whole way back
    assert np.array_equal(decode_voxels(answer), voxels > 100)
    assert np.array_equal(decode_voxels(content), voxels)
    if image["sides_known"]:
        assert np.array_equal(read_by_nibabel(answer), image["affine"])
    draw_preview(voxels, decode_voxels(answer), np.array(image["affine"]), {1: "x"}, is_oriented=image["sides_known"])


def test_random_headers_are_of_every_kind():
    found = [read_geometry(random_header(number)) for number in range(200)]
    assert {geometry.source for geometry in found} == {"sform", "qform", "pixdim"}
    assert sum(not geometry.warnings for geometry in found) > 40
    assert {geometry.stored_orientation for geometry in found} > {None, *AXIS_CODES[::7]}
    sentences = " ".join(" ".join(geometry.warnings) for geometry in found)
    for part in ("tilted gantry", "beside a valid qform", "unusable sform", "neither an sform", "no usable sform",
                 "negative zooms", "qfac", "millilitres", "positions", "voxels are larger"):  # fmt: skip
        assert part in sentences


@pytest.mark.parametrize("codes", AXIS_CODES)
def test_all_48_orientations_give_the_same_volume_by_the_qform_alone(codes):
    las = nib.Nifti1Image(np.random.default_rng(1).integers(0, 256, SHAPE).astype(np.int16), np.diag([-2.0, 3, 4, 1]))
    transform = nib.orientations.ornt_transform(nib.io_orientation(las.affine), nib.orientations.axcodes2ornt(codes))
    stored = las.as_reoriented(transform)
    stored.set_qform(stored.affine, 1)
    content = stored.to_bytes()
    header = Nifti1Header(content[:348], check=False)
    for name, value in NO_SFORM.items():
        header[name] = value
    volume, geometry = decode_volume(header.binaryblock + content[348:], Options(), LIMITS)
    assert np.array_equal(volume, decode_volume(las.to_bytes(), Options(), LIMITS)[0])
    assert geometry.image.stored_orientation == codes
