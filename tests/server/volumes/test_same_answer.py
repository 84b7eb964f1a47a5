"""The same request gets the same bits: repeated, on a busy server, and by every way of sending it."""

import base64
import json
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
from helpers.nifti_answers import label_image
from medimageparse_client import Client

TENSORS = ("nifti_file", "label_map", "scores")
N_THREADS = 8


def post(server, path, body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{server.http_url}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_repeated_request_gets_the_same_bits_over_both_protocols(infer, request_of, answer, protocol):
    repeated = infer(request_of(), protocol)
    assert {name: repeated[name].dtype.name for name in TENSORS} == {
        "nifti_file": "object",
        "label_map": "uint8",
        "scores": "float32",
    }
    for name in TENSORS:
        assert np.array_equal(repeated[name], answer[name])


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.encodebytes])
def test_raw_and_base64_agree(infer, request_of, answer, protocol, encode):
    inputs = request_of()
    inputs["image"] = encode(inputs["image"])
    assert (b"\n" in inputs["image"]) == (encode is base64.encodebytes)
    found = infer(inputs, protocol)
    for name in TENSORS:
        assert np.array_equal(found[name], answer[name])


def test_two_strings_to_generate_are_answered_as_azure_clients_read_it(server, request_of, answer, volume, tmp_path):
    inputs = request_of()
    sent = {"image": base64.encodebytes(inputs["image"]).decode("utf-8"), "text": inputs["text"].decode("utf-8")}
    found = post(server, "/v2/models/medimageparse_3d/generate", sent)
    path = tmp_path / "masks.nii.gz"
    path.write_bytes(base64.b64decode(json.loads(found["nifti_file"])["data"]))
    labels = nib.load(path)
    assert np.array_equal(np.asarray(labels.dataobj), answer["label_map"])
    assert np.array_equal(labels.affine, volume.affine)
    assert json.loads(found["report"])["prompts"] == json.loads(answer["report"].item())["prompts"]


def test_a_json_body_of_more_than_four_megabytes_is_taken(server, request_of, answer):
    # the server parses JSON recursively, and dies of it unless it has been given a large stack
    data = request_of()["image"]
    values = {"image": " " * 6_000_000 + base64.b64encode(data).decode(), "text": request_of()["text"].decode()}
    inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [value]} for name, value in values.items()]
    body = {"inputs": inputs, "outputs": [{"name": "scores"}, {"name": "report"}]}
    [scores] = (o for o in post(server, "/v2/models/medimageparse_3d/infer", body)["outputs"] if o["name"] == "scores")
    assert np.array_equal(np.float32(scores["data"]).reshape(scores["shape"]), answer["scores"])


@pytest.fixture(scope="module")
def jobs(volume, phantom):
    """Volumes and prompts that all differ."""
    thick = nib.Nifti1Image(np.asarray(volume.dataobj)[:, :, :3], volume.affine)
    brighter = nib.Nifti1Image(np.asarray(volume.dataobj) + np.int16(30), volume.affine)
    grey = np.clip((np.asarray(volume.dataobj) + 160.0) * (255 / 400), 0, 255)
    chest = nib.Nifti1Image(phantom.intensities, phantom.affine).slicer[8:184:2, 24:168:2, 26:30]
    return [
        (volume, ["liver"]),
        (volume, ["spleen", "aorta", "spine"]),
        (thick, ["stomach", "liver", "spleen", "left kidney"]),
        (brighter, ["the liver as seen in abdominal CT images", "spine"]),
        (nib.Nifti1Image(grey.astype(np.uint8), volume.affine), ["liver", "spleen"]),
        (nib.Nifti1Image(grey.astype(np.float32), volume.affine), ["liver", "spleen"]),
        (chest, ["heart", "left lung", "spine"]),
        (volume.slicer[:, :, 2:3], ["liver", "spleen", "stomach", "aorta", "spine", "brain"]),
    ]


def test_a_busy_server_changes_no_voxel(server, client, jobs):
    alone = [client.segment(image, prompts) for image, prompts in jobs]
    together = threading.Barrier(N_THREADS)

    def ask(thread):
        url = f"http://{server.http_url}" if thread % 2 else f"grpc://{server.grpc_url}"
        answers = []
        with Client(url, timeout_s=300) as own:
            together.wait(60)
            for step in range(2):
                job = (thread + 3 * step) % len(jobs)
                answers.append((job, own.segment(*jobs[job])))
        return answers

    with ThreadPoolExecutor(N_THREADS) as threads:
        for job, busy in (answer for answers in threads.map(ask, range(N_THREADS)) for answer in answers):
            assert np.array_equal(busy.label_map, alone[job].label_map)
            assert np.array_equal(busy.scores, alone[job].scores)
            assert busy.nifti == alone[job].nifti
            assert busy.report["prompts"] == alone[job].report["prompts"]


def test_an_output_that_nobody_asks_for_is_not_sent(infer, request_of, answer):
    assert np.array_equal(infer(request_of(), outputs=["scores"])["scores"], answer["scores"])


def test_one_slice_is_a_volume(infer, request_of, volume):
    one = volume.slicer[:, :, 2:3]
    found = infer(request_of(one))
    assert found["label_map"].shape == label_image(found["nifti_file"]).shape == one.shape
    assert found["scores"].shape == (5, 1)
