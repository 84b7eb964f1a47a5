"""The options of a request, each of which the report shows."""

import json

import nibabel as nib
import numpy as np
import pytest
from helpers.nifti_answers import assert_same_geometry, label_image

WINDOWS = {"ct-soft-tissue": [-160, 240], "ct-lung": [-910, 590], "ct-brain": [0, 80], "ct-bone": [-500, 1300]}


def report(answer):
    return json.loads(answer["report"].item())


def grey(voxels, low, high):
    """0..255 in whole numbers, as the server's CT windows make them."""
    return ((np.clip(np.float32(voxels), low, high) - low) * (255 / (high - low))).astype(np.uint8)


@pytest.mark.parametrize("intensity", WINDOWS)
def test_a_ct_window_is_what_the_caller_could_have_applied(infer, request_of, volume, intensity):
    low, high = WINDOWS[intensity]
    windowed = nib.Nifti1Image(grey(np.asarray(volume.dataobj), low, high), volume.affine)
    by_server = infer(request_of(intensity=intensity))
    by_caller = infer(request_of(windowed, intensity="none"))
    assert np.array_equal(by_server["label_map"], by_caller["label_map"])
    assert np.array_equal(by_server["scores"], by_caller["scores"])
    assert report(by_server)["image"]["intensity"] == {
        "asked": intensity,
        "used": intensity,
        "bounds": [low, high],
        "padding": [],
        "resized_as": "uint8",
    }
    assert report(by_caller)["image"]["intensity"]["used"] == "none"


def test_auto_takes_the_soft_tissue_window_for_hounsfield_units(infer, request_of, answer):
    assert report(answer)["image"]["intensity"]["used"] == "ct-soft-tissue"
    assert report(answer)["image"]["intensity"]["asked"] == "auto"
    assert np.array_equal(infer(request_of(intensity="ct-soft-tissue"))["scores"], answer["scores"])


@pytest.mark.parametrize(
    ("voxels", "used", "resized_as"),
    [
        (lambda hu: grey(hu, -160, 240), "none", "uint8"),
        (lambda hu: grey(hu, -160, 240).astype(np.float32), "none", "uint8"),
        (lambda hu: np.clip((np.float32(hu) + 160) * np.float32(255 / 400), 0, 255), "none", "float32"),
        (lambda hu: np.float32(hu) + 1024, "percentile", "uint8"),
        (lambda hu: (np.float32(hu) + 1024) / 4096, "percentile", "uint8"),
    ],
    ids=["0 to 255", "whole floats", "fractions", "scanner units", "0 to 1"],
)
def test_auto_tells_the_other_kinds_of_volume_apart(infer, request_of, volume, voxels, used, resized_as):
    image = nib.Nifti1Image(voxels(np.asarray(volume.dataobj)), volume.affine).slicer[:, :, 2:3]
    intensity = report(infer(request_of(image, ["liver"])))["image"]["intensity"]
    assert (intensity["asked"], intensity["used"], intensity["resized_as"]) == ("auto", used, resized_as)


def test_percentiles_are_of_the_voxels_that_are_not_zero(infer, request_of, volume):
    scanner = np.asarray(volume.dataobj, np.int16) + np.int16(1024)
    image = nib.Nifti1Image(scanner, volume.affine)
    found = report(infer(request_of(image, ["liver"], intensity="percentile")))["image"]["intensity"]
    assert found["bounds"] == pytest.approx(np.percentile(scanner[scanner != 0], (0.5, 99.5)), rel=1e-4)


def test_stored_orientation_slices_the_axes_as_they_are(infer, request_of, volume, answer):
    # stored as LAS, both mean the same; stored with x and y reversed, only "LAS" finds the same patient
    turned = volume.as_reoriented(np.array([[0, -1], [1, -1], [2, 1]]))
    stored = infer(request_of(orientation="stored"))
    assert np.array_equal(stored["label_map"], answer["label_map"])
    assert report(stored)["image"]["orientation"] == "stored"
    assert report(answer)["image"]["orientation"] == "LAS"
    found = infer(request_of(turned, orientation="stored"))
    assert report(found)["image"]["stored_orientation"] == "RPS"
    without_affine = nib.Nifti1Image(np.asarray(turned.dataobj), volume.affine)
    assert np.array_equal(found["label_map"], infer(request_of(without_affine))["label_map"])
    assert_same_geometry(label_image(found["nifti_file"]), nib.Nifti1Image.from_bytes(turned.to_bytes()))


@pytest.mark.parametrize("slice_axis", ["0", "1", "2"])
def test_slice_axis_names_the_axis_of_the_slices_first_volume(infer, request_of, volume, answer, slice_axis):
    small = volume.slicer[20:36, 20:34, :]
    found = infer(request_of(small, ["liver"], slice_axis=slice_axis))
    image = report(found)["image"]
    stored_axis = 2 - int(slice_axis)  # (z, y, x) of a volume that is stored (x, y, z)
    assert (image["slice_axis"], image["slice_axis_stored"]) == (int(slice_axis), stored_axis)
    assert found["scores"].shape == (1, small.shape[stored_axis])
    assert found["label_map"].shape == small.shape
    assert report(answer)["image"]["slice_axis_stored"] == 2


@pytest.mark.parametrize(("output", "missing"), [("nifti_file", "label_map"), ("label_map", "nifti_file")])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_output_names_the_one_to_make(infer, request_of, answer, output, missing, protocol):
    found = infer(request_of(output=output), protocol, [output, "scores", "report"])
    assert np.array_equal(found[output], answer[output])
    assert infer(request_of(output=output), protocol)[missing] is None


def test_the_report_describes_what_the_label_map_shows(answer, volume, weights):
    found, labels = report(answer), answer["label_map"]
    for label, entry in enumerate(found["prompts"], start=1):
        at = np.argwhere(labels == label)
        assert entry["label"] == label
        assert entry["voxels"] == len(at)
        assert entry["present"] == bool(len(at))
        assert entry["highest_score"] == pytest.approx(answer["scores"][label - 1].max(), abs=1e-6)
        assert entry["volume_ml"] == pytest.approx(len(at) * abs(np.linalg.det(volume.affine)) / 1000, abs=1e-5)
        assert entry["truncated"] is False
        if len(at):
            assert entry["box_voxels"] == [at.min(0).tolist(), at.max(0).tolist()]
            corners = nib.affines.apply_affine(volume.affine, [at.min(0) - 0.5, at.max(0) + 0.5])
            assert np.allclose(entry["box_mm"], [corners.min(0), corners.max(0)], atol=1e-3)
    assert [entry["text"] for entry in found["prompts"]] == [
        "liver",
        "CT imaging of the spleen within the abdomen",
        "stomach",
        "aorta",
        "spine",
    ]
    assert found["image"]["shape"] == list(volume.shape)
    networks = json.loads((weights / "medimageparse_3d" / "1" / "networks.json").read_text())
    assert found["networks"] == networks | {"runtime": "cpu"}
    steps = {"decode_volume", "tokenize_prompts", "text_encoder_3d", "segment_window_3d", "encode_masks"}
    assert set(found["milliseconds"]) == steps | {"total"}


def test_one_slice_is_a_volume(infer, request_of, volume):
    one = volume.slicer[:, :, 2:3]
    found = infer(request_of(one))
    assert found["label_map"].shape == label_image(found["nifti_file"]).shape == one.shape
    assert found["scores"].shape == (5, 1)
