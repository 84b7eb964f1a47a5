"""The client and its command line on the real server."""

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from helpers.inference import PROMPTS
from medimageparse_client import Client, InvalidRequest, RequestTimeout, ServerUnavailable
from medimageparse_client.cli import main
from medimageparse_client.formats.nrrd import encode_nrrd
from medimageparse_serving.launch.serve import free_port
from PIL import Image


@pytest.fixture(params=["grpc", "http"])
def any_client(request, server):
    url = server.grpc_url if request.param == "grpc" else server.http_url
    with Client(url, protocol=request.param, timeout_s=300) as client:
        yield client


@pytest.fixture
def volume_file(tmp_path, volume):
    path = tmp_path / "ct.nii.gz"
    nib.save(volume, path)
    return path


def test_path_bytes_image_and_array_get_one_answer(any_client, volume, volume_file, answer):
    kinds = [volume_file, str(volume_file), volume_file.read_bytes(), volume]
    results = [any_client.segment(kind, PROMPTS) for kind in kinds]
    results.append(any_client.segment(np.asarray(volume.dataobj), PROMPTS, affine=volume.affine))
    for result in results:
        assert np.array_equal(result.label_map, answer["label_map"])
        assert np.array_equal(result.scores, answer["scores"])
        assert np.array_equal(result.affine, volume.affine)
        assert result.labels == {prompt: label for label, prompt in enumerate(PROMPTS, start=1)}


def test_what_is_saved_is_what_was_answered(client, volume, volume_file, answer, tmp_path):
    result = client.segment(volume_file, PROMPTS)
    for name in ("masks.nii.gz", "masks.nii"):
        result.save(tmp_path / name)
        saved = nib.load(tmp_path / name)
        assert np.array_equal(np.asarray(saved.dataobj), answer["label_map"])
        assert np.array_equal(saved.affine, volume.affine)
    result.preview(tmp_path / "masks.png")
    with Image.open(tmp_path / "masks.png") as picture:
        colours = np.asarray(picture).reshape(-1, 3).astype(int)
    assert np.ptp(colours, axis=1).max() > 100  # labels are coloured, the volume is grey


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_nrrd_and_mha_get_the_answer_of_the_nifti(ending, client, volume, answer, tmp_path):
    path = tmp_path / f"ct.{ending}"
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.asarray(volume.dataobj).T))
    lps = np.diag([-1, -1, 1, 1]) @ volume.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing)
    image.SetDirection((lps[:3, :3] / spacing).ravel())
    image.SetOrigin(lps[:3, 3])
    sitk.WriteImage(image, str(path), True)
    result = client.segment(path, PROMPTS)
    assert np.array_equal(result.label_map, answer["label_map"])
    for name in ("masks.nrrd", "masks.mha", "masks.seg.nrrd"):
        result.save(tmp_path / name)
        saved = sitk.ReadImage(str(tmp_path / name))
        assert np.array_equal(sitk.GetArrayFromImage(saved).T, answer["label_map"])
        assert np.allclose(saved.GetDirection(), image.GetDirection(), atol=1e-5)
        assert np.allclose(saved.GetOrigin(), image.GetOrigin(), atol=1e-3)


def test_a_volume_without_sides_gets_an_nrrd_without_sides(client, volume, tmp_path):
    data = encode_nrrd(np.asarray(volume.get_fdata() > 0, np.uint8) * 200, volume.affine, sides_known=False)
    result = client.segment(data, PROMPTS)
    assert not result.facts.image.sides_known
    assert b"space:" not in result.to_bytes(".nrrd")[:500]


def test_options_reach_the_server(client, volume):
    result = client.segment(volume, "liver", intensity="ct-bone", orientation="stored", slice_axis=0)
    image = result.report["image"]
    assert (image["intensity"]["used"], image["orientation"], image["slice_axis"]) == ("ct-bone", "stored", 0)


def test_the_servers_refusal_is_an_invalid_request(any_client, volume):
    blank = nib.Nifti1Image(np.full((4, 4, 4), np.nan, np.float32), volume.affine)
    with pytest.raises(InvalidRequest, match=r"^image has NaN or infinite voxels; [^\n]*$"):
        any_client.segment(blank, ["liver"])


def test_a_request_that_takes_too_long_ends_in_time(any_client, volume, answer):
    impatient = Client(any_client.url, protocol=any_client.protocol, timeout_s=0.05)
    with impatient, pytest.raises(RequestTimeout, match=r"^no answer from .* within 0\.05 s; [^\n]*$"):
        impatient.segment(volume, PROMPTS)
    assert np.array_equal(any_client.segment(volume, PROMPTS).label_map, answer["label_map"])


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_no_server_is_said_plainly(volume, protocol):
    url = f"127.0.0.1:{free_port()}"
    with Client(url, protocol=protocol, timeout_s=20, retries=0) as nobody:
        with pytest.raises(ServerUnavailable, match=rf"^the server at {url} is not available: [^\n]*$"):
            nobody.segment(volume, ["liver"])
        assert not nobody.health().is_live


def test_health(any_client):
    health = any_client.health()
    assert health.is_ready
    assert health.models["medimageparse_3d"]
    assert health.server.startswith("triton ")


def test_the_command_writes_masks_preview_and_report(server, volume_file, answer, tmp_path, capsys):
    outputs = {name: tmp_path / name for name in ("masks.nii.gz", "masks.png", "report.json")}
    command = ["segment", str(volume_file), *PROMPTS, "-o", str(outputs["masks.nii.gz"]), "--url", server.grpc_url]
    command += ["--preview", str(outputs["masks.png"]), "--report", str(outputs["report.json"])]
    assert main(command) == 0
    assert np.array_equal(np.asarray(nib.load(outputs["masks.nii.gz"]).dataobj), answer["label_map"])
    with Image.open(outputs["masks.png"]) as picture:
        assert picture.format == "PNG"
    report = json.loads(outputs["report.json"].read_text())
    assert [entry["text"] for entry in report["prompts"]] == list(PROMPTS)
    assert "CT imaging of the spleen within the abdomen" in capsys.readouterr().out


def test_the_command_takes_a_folder_and_several_files(server, volume, tmp_path, capsys):
    scans = tmp_path / "scans"
    scans.mkdir()
    for index in range(3):
        nib.save(volume.slicer[:, :, index : index + 2], scans / f"ct_{index}.nii.gz")
    (scans / "damaged.nii.gz").write_bytes((scans / "ct_0.nii.gz").read_bytes()[:500])
    out = tmp_path / "masks"
    assert main(["segment", str(scans), "liver", "spine", "-o", str(out), "--url", f"http://{server.http_url}"]) == 1
    results = sorted(f"ct_{index}{ending}" for index in range(3) for ending in (".json", ".nii.gz"))
    assert sorted(path.name for path in out.iterdir()) == results
    printed = capsys.readouterr()
    assert printed.out == "3 of 4 volumes segmented\n"
    assert "damaged.nii.gz: image is truncated" in printed.err

    (scans / "damaged.nii.gz").unlink()
    files = sorted(str(path) for path in scans.iterdir())
    again = tmp_path / "again"
    prompts = ["--prompt", "liver", "--prompt", "spine"]
    assert main(["segment", *files, *prompts, "-o", str(again), "--url", server.grpc_url]) == 0
    assert sorted(path.name for path in again.iterdir()) == results
    for path in again.glob("*.nii.gz"):  # reports have times
        assert path.read_bytes() == (out / path.name).read_bytes()


def test_exit_codes(server, volume_file, tmp_path, capsys):
    masks = str(tmp_path / "masks.nii.gz")
    url = ["--url", server.grpc_url]
    assert main(["segment", str(volume_file), "liver", "-o", masks, "--url", f"127.0.0.1:{free_port()}"]) == 3
    assert main(["segment", str(volume_file), "liver", "-o", masks, "--timeout", "0.01", *url]) == 4
    assert main(["segment", str(tmp_path / "missing.nii"), "liver", "-o", masks, *url]) == 5
    assert main(["segment", str(volume_file), "\x07", "-o", masks, *url]) == 6
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4
    assert all(line.startswith("medimageparse: ") and "Traceback" not in line for line in errors)
    assert not (tmp_path / "masks.nii.gz").exists()


def test_health_from_a_shell(server):
    command = [sys.executable, "-m", "medimageparse_client", "health", "--url"]
    healthy = subprocess.run([*command, server.grpc_url], capture_output=True, text=True, timeout=120)
    assert healthy.returncode == 0
    assert healthy.stdout.splitlines()[1] == "medimageparse_3d: ready"
    down = subprocess.run([*command, f"127.0.0.1:{free_port()}"], capture_output=True, text=True, timeout=120)
    assert down.returncode == 3
    assert down.stderr.count("\n") == 1
