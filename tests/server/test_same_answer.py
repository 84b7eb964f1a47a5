"""The same request gets the same bits: repeated, on a busy server, and by every way of sending it. For both models."""

import base64
import gzip
import json
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, combinations

import nibabel as nib
import numpy as np
import pytest
from helpers.image_answers import categories_of, image_file, maps_of, report_of
from helpers.inference import inferring
from helpers.nifti_answers import nifti_bytes
from medimageparse_contract.models import MODEL_3D

TYPES = {"label_map": "uint8", "scores": "float32"}  # the others are strings
APART = {"joint": np.array([False])}


def assert_same(found, expected, outputs):
    """The bits of every output, but for the times of a report."""
    for name in outputs:
        if name == "report":
            assert report_of(found)["prompts"] == report_of(expected)["prompts"]
        else:
            assert found[name].dtype == np.dtype(TYPES.get(name, "object"))
            assert np.array_equal(found[name], expected[name])


def post(server, path, body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{server.http_url}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)


@pytest.fixture(scope="module")
def alone(either):
    """The answer over gRPC while nobody else asks."""
    return either.infer(either.inputs)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("encode", [bytes, base64.b64encode, base64.encodebytes])
def test_raw_and_base64_get_the_same_bits_over_both_protocols(either, alone, protocol, encode):
    image = encode(either.inputs["image"])
    assert (b"\n" in image.rstrip()) == (encode is base64.encodebytes) or encode is bytes
    found = either.infer(either.inputs | {"image": image}, protocol)
    assert_same(found, alone, either.outputs)


def test_two_strings_to_generate_are_answered_as_azure_clients_read_it(either, alone):
    sent = {"image": base64.encodebytes(either.inputs["image"]).decode("utf-8"), "text": either.inputs["text"].decode()}
    found = post(either.server, f"/v2/models/{either.name}/generate", sent)
    assert json.loads(found["report"])["prompts"] == report_of(alone)["prompts"]
    if either.name == MODEL_3D:
        content = gzip.decompress(base64.b64decode(json.loads(found["nifti_file"])["data"]))
        assert content == nifti_bytes(alone["nifti_file"])
        assert np.array_equal(np.asarray(nib.Nifti1Image.from_bytes(content).dataobj), alone["label_map"])
    else:
        features = json.loads(found["image_features"])
        mask = np.frombuffer(base64.b64decode(features["data"]), dtype=features["dtype"]).reshape(features["shape"])
        assert np.array_equal(mask, maps_of(alone))
        assert found["text_features"] == categories_of(alone)


def test_a_json_body_of_more_than_four_megabytes_is_taken(either, alone):
    # the server parses JSON recursively, and dies of it unless it has been given a large stack
    image, text = base64.b64encode(either.inputs["image"]).decode(), either.inputs["text"].decode()
    values = {"image": " " * 6_000_000 + image, "text": text}
    inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [value]} for name, value in values.items()]
    body = {"inputs": inputs, "outputs": [{"name": name} for name in either.outputs[-2:]]}
    found = {
        output["name"]: output for output in post(either.server, f"/v2/models/{either.name}/infer", body)["outputs"]
    }
    assert json.loads(found["report"]["data"][0])["prompts"] == report_of(alone)["prompts"]
    if either.name == MODEL_3D:
        scores = np.float32(found["scores"]["data"]).reshape(found["scores"]["shape"])
        assert np.array_equal(scores, alone["scores"])
    else:
        assert found["text_features"]["data"] == categories_of(alone)


def test_any_outputs_can_be_asked_for(either, alone):
    for outputs in chain.from_iterable(combinations(either.outputs, n) for n in range(1, len(either.outputs) + 1)):
        assert_same(either.infer(either.inputs, outputs=outputs), alone, outputs)


def volume_jobs(volume, phantom, request_of):
    """Volumes and prompts that all differ."""
    voxels = np.asarray(volume.dataobj)
    thick, brighter = (
        nib.Nifti1Image(voxels[:, :, :3], volume.affine),
        nib.Nifti1Image(voxels + np.int16(30), volume.affine),
    )
    grey = np.clip((voxels + 160.0) * (255 / 400), 0, 255)
    chest = nib.Nifti1Image(phantom.intensities, phantom.affine).slicer[8:184:2, 24:168:2, 26:30]
    jobs = [
        (volume, ["liver"]),
        (volume, ["spleen", "aorta", "spine"]),
        (thick, ["stomach", "liver", "spleen", "left kidney"]),
        (brighter, ["the liver as seen in abdominal CT images", "spine"]),
        (nib.Nifti1Image(grey.astype(np.uint8), volume.affine), ["liver", "spleen"]),
        (nib.Nifti1Image(grey.astype(np.float32), volume.affine), ["liver", "spleen"]),
        (chest, ["heart", "left lung", "spine"]),
        (volume.slicer[:, :, 2:3], ["liver", "spleen", "stomach", "aorta", "spine", "brain"]),
    ]
    return [request_of(image, prompts) for image, prompts in jobs]


def image_jobs(picture, text):
    """Images and prompts that all differ, with and without an image type."""
    noise = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return [
        {"image": image_file(picture), "text": text},
        {"image": image_file(picture[::-1, :50]), "text": b"left lung"},
        {"image": image_file(255 - picture), "text": text} | APART,
        {"image": image_file(picture[:, :, 1].T), "image_type": b"Fundus"},
        {"image": image_file(noise), "text": b"lesion & tumor"},
        {"image": image_file(picture, "JPEG"), "text": b"nodule", "output": b"masks"},
    ]


@pytest.fixture(scope="module")
def jobs(either, request):
    get = request.getfixturevalue
    if either.name == MODEL_3D:
        return volume_jobs(get("volume"), get("phantom"), get("request_of"))
    return image_jobs(get("picture"), either.inputs["text"])


def test_a_busy_server_changes_no_bit(either, jobs):
    alone = [either.infer(job) for job in jobs]
    together = threading.Barrier(len(jobs))

    def ask(thread):
        with inferring(either.server, either.name, either.outputs) as infer:
            together.wait(60)
            picked = [(thread + 2 * step) % len(jobs) for step in range(3)]
            return [(job, infer(jobs[job], "http" if thread % 2 else "grpc")) for job in picked]

    with ThreadPoolExecutor(len(jobs)) as threads:
        for job, busy in chain.from_iterable(threads.map(ask, range(len(jobs)))):
            assert_same(busy, alone[job], either.outputs)


def test_a_prompt_that_is_cut_is_reported(either):
    found = either.infer(either.inputs | {"text": b"liver & " + b"liver " * 90})
    assert [entry["truncated"] for entry in report_of(found)["prompts"]] == [False, True]
