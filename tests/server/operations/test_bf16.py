"""RUNTIME=cpu-bf16: the image encoders by OpenVINO, everything else as with RUNTIME=cpu."""

import shutil

import nibabel as nib
import numpy as np
import pytest
import tritonclient.grpc
from helpers.running_server import triton_server
from medimageparse_client import Client
from medimageparse_demo.images import make_image
from medimageparse_serving.launch import built_files
from tritonclient.utils import InferenceServerException


def answers(server, phantom, picture):
    """Label map of a CT, masks of a picture, and the two reports."""
    with Client(server.grpc_url, timeout_s=600) as client:
        volume = client.segment(nib.Nifti1Image(phantom.intensities, phantom.affine), sorted(phantom.structures))
        image = client.segment_image(picture.pixels, sorted(picture.masks))
        return volume.label_map, image.probabilities > 127, (volume.report, image.report)


@pytest.fixture(scope="module")
def picture():
    return make_image(4)


@pytest.fixture(scope="module")
def in_fp32(both_alone, phantom, picture):
    with triton_server(both_alone) as server:
        return answers(server, phantom, picture)


def overlap(a, b):
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


@pytest.mark.skipif(not built_files.has_bf16(), reason="this processor has no instructions for bf16")
def test_masks_in_bf16_are_those_in_fp32(both_alone, phantom, picture, in_fp32):
    with triton_server(both_alone, "cpu-bf16") as server:
        labels, masks, reports = answers(server, phantom, picture)
    expected_labels, expected_masks, expected_reports = in_fp32
    assert [report["networks"]["runtime"] for report in (*reports, *expected_reports)] == 2 * ["cpu-bf16"] + 2 * ["cpu"]
    assert np.mean(labels == expected_labels) >= 0.995
    found = [label for label in np.unique(expected_labels) if label]
    assert len(found) >= 5
    assert min(overlap(labels == label, expected_labels == label) for label in found) >= 0.995
    assert min(map(overlap, masks, expected_masks)) >= 0.995


def test_the_same_graphs_in_fp32_by_openvino_and_no_words_about_wrong_tensors(
    tmp_path, monkeypatch, both_alone, phantom, picture, in_fp32
):
    repository = shutil.copytree(both_alone, tmp_path / "model_repository")
    for network in ("image_encoder", "image_encoder_3d"):
        config = repository / network / "configs" / "cpu-bf16.pbtxt"
        text = config.read_text()
        assert '"bf16"' in text
        config.write_text(text.replace('"bf16"', '"f32"'))
    monkeypatch.setattr(built_files, "has_bf16", lambda: True)
    with (
        triton_server(repository, "cpu-bf16") as server,
        tritonclient.grpc.InferenceServerClient(server.grpc_url) as triton,
    ):
        labels, masks, _ = answers(server, phantom, picture)
        assert np.mean(labels != in_fp32[0]) < 0.0001
        assert np.mean(masks != in_fp32[1]) < 0.0001
        window = tritonclient.grpc.InferInput("window", [1, 3, 7, 5], "UINT8")
        window.set_data_from_numpy(np.zeros((1, 3, 7, 5), np.uint8))
        digit_values = tritonclient.grpc.InferInput("digit_values", [1], "FP32")
        digit_values.set_data_from_numpy(np.ones(1, np.float32))
        with pytest.raises(InferenceServerException) as refused:
            triton.infer("image_encoder_3d", [window, digit_values], parameters={"inner_key": server.inner_key})
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "these tensors gave no result" in refused.value.message()
    assert "/" not in refused.value.message()
