import gzip
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from medimageparse_client import Client, InvalidRequest
from medimageparse_client.results.report import VolumePrompt
from medimageparse_client.results.segmentation import describe_size
from medimageparse_contract.catalogue import structures
from PIL import Image


@pytest.mark.parametrize("url", ["localhost:8001", "grpc://localhost:8001/", "http://localhost:8000"])
def test_segment(url, triton, volume_file, volume, affine):
    with Client(url) as client:
        result = client.segment(volume_file, ["liver", "left kidney"])
    assert not client._connection._server.is_open
    assert result.prompts == ("liver", "left kidney")
    assert result.labels == {"liver": 1, "left kidney": 2}
    np.testing.assert_array_equal(result.label_map, volume)
    np.testing.assert_allclose(result.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(result.mask("left kidney"), volume == 2)
    assert result.describe("left kidney")["voxels"] == (volume == 2).sum()
    assert result.scores.shape == (2, 8)
    assert [described["text"] for described in result.report["prompts"]] == ["liver", "left kidney"]
    assert triton.requests == [
        {
            "model": "medimageparse_3d",
            "text": "liver & left kidney",
            "intensity": "auto",
            "orientation": "LAS",
            "slice_axis": "auto",
            "output": "nifti_file",
            "outputs": ["nifti_file", "scores", "report"],
        }
    ]


def test_every_kind_of_volume_gives_the_same(triton, volume_file, volume, affine):
    with Client() as client:
        for source in (str(volume_file), volume_file.read_bytes(), nib.load(volume_file)):
            np.testing.assert_array_equal(client.segment(source, "liver").label_map, volume == 1)
        result = client.segment(volume, "liver", affine=affine)
        np.testing.assert_array_equal(result.label_map, volume == 1)


def test_options(triton, volume_file):
    with Client() as client:
        client.segment(volume_file, "lung", intensity="ct-lung", orientation="stored", slice_axis=2)
    sent = triton.requests[0]
    assert (sent["intensity"], sent["orientation"], sent["slice_axis"]) == ("ct-lung", "stored", "2")


def test_time_outs_are_finite_and_reach_the_transport(triton):
    for url in ("http://localhost:8000", "localhost:8001"):
        assert Client(url, timeout_s=7)._connection._server.options["timeout_s"] == 7
    assert 0 < Client().timeout_s < float("inf")
    for timeout_s in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="finite"):
            Client(timeout_s=timeout_s)


def test_a_repeated_prompt_keeps_its_first_label(triton, volume_file):
    with Client() as client:
        result = client.segment(volume_file, ["liver", "spleen", "liver"])
    assert result.labels == {"liver": 1, "spleen": 2}
    assert result.scores.shape == (3, 8)


@pytest.mark.parametrize(
    ("url", "protocol", "sentence"),
    [
        ("localhost", None, "host:port"),
        ("localhost:port", None, "host:port"),
        (":8001", None, "host:port"),
        ("ftp://localhost:8000", None, "grpc or http"),
        ("localhost:8000", "ftp", "grpc or http"),
        ("http://localhost:8000", "grpc", "another protocol"),
    ],
)
def test_wrong_urls(url, protocol, sentence):
    with pytest.raises(ValueError, match=sentence):
        Client(url, protocol=protocol)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_health(protocol, triton):
    health = Client(protocol=protocol).health()
    assert health.is_live
    assert health.is_ready
    assert health.models == {"medimageparse_3d": True, "medimageparse": True}
    assert health.server == "triton 2.51.0"
    triton.models = ("medimageparse_3d",)
    assert Client(protocol=protocol).health().models == {"medimageparse_3d": True, "medimageparse": False}
    assert Client(protocol=protocol).health().is_ready
    triton.is_loaded = False
    assert not Client(protocol=protocol).health().is_ready
    assert Client(protocol=protocol).health().is_live


def test_health_of_a_server_that_is_not_there(triton):
    health = Client("nobody:8001").health()
    assert not health.is_live
    assert not health.is_ready
    assert health.problem == "the server at nobody:8001 is not available: Connection refused"


def test_save(triton, volume_file, volume, affine, tmp_path):
    with Client() as client:
        result = client.segment(volume_file, ["liver", "spleen"])
    result.save(tmp_path / "masks.nii.gz")
    result.save(str(tmp_path / "masks.nii"))
    assert (tmp_path / "masks.nii.gz").read_bytes() == result.nifti
    assert (tmp_path / "masks.nii").read_bytes() == gzip.decompress(result.nifti)
    for name in ("masks.nii.gz", "masks.nii"):
        image = nib.load(tmp_path / name)
        np.testing.assert_array_equal(image.dataobj, volume)
        np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    with pytest.raises(ValueError, match=r"\.nii\.gz, \.nii"):
        result.save(tmp_path / "masks.npy")


@pytest.mark.parametrize("sides_known", [True, False])
def test_preview(sides_known, triton, volume_file, tmp_path):
    triton.sides_known = sides_known
    with Client() as client:
        result = client.segment(volume_file, ["liver", "spleen", "a prompt that finds nothing"])
    result.preview(tmp_path / "masks.png")
    with Image.open(tmp_path / "masks.png") as picture:
        assert picture.format == "PNG"
        assert picture.mode == "RGB"
    assert {path.name for path in tmp_path.iterdir()} == {"ct.nii.gz", "masks.png"}


def test_preview_shows_the_intensities_that_the_network_saw(triton, volume_file, monkeypatch, tmp_path):
    with Client() as client:
        result = client.segment(volume_file, "liver")
    result.report["image"]["intensity"] |= {"bounds": [-160.0, 240.0], "padding": [3000.0]}
    seen = {}
    monkeypatch.setattr(
        "medimageparse_client.results.segmentation.draw_preview",
        lambda *images, **options: seen.update(options) or Image.new("RGB", (4, 4)),
    )
    result.preview(tmp_path / "masks.png")
    shown = {name: seen[name] for name in ("grey_range", "padding", "is_oriented")}
    assert shown == {"grey_range": (-160.0, 240.0), "padding": (3000.0,), "is_oriented": True}


def test_legend():
    found = VolumePrompt(True, 0.9, 3, 1.25, False)
    assert describe_size("liver", found) == "liver: 1.2 ml"
    assert describe_size("liver", replace(found, volume_ml=None)) == "liver: 3 voxels"
    assert describe_size("liver", replace(found, present=False)) == "liver: not found"


def test_a_preset_in_place_of_prompts(triton, volume_file, volume):
    with Client() as client:
        result = client.segment(volume_file, preset="CT-Abdomen")
        rows = structures("3d", preset="ct-abdomen")
        assert result.prompts == tuple(row.prompt for row in rows)
        assert result.mask(rows[0].prompt).sum() == (volume == 1).sum()
        both = {"prompts": "liver", "preset": "CT-Abdomen"}
        for wrong, words in (
            ({}, "not both"),
            (both, "not both"),
            ({"preset": "liver"}, "there are ct-lesions-abdomen"),
        ):
            with pytest.raises(InvalidRequest, match=words):
                client.segment(volume_file, **wrong)
    assert len(triton.requests) == 1
