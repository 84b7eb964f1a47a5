"""Strings planted in prompts, headers, file names and JSON reach no log of the server, however the request ends."""

import base64
import gzip
import io
import json
import os
import re
import shutil
import signal
import urllib.error
import urllib.request
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest
import tritonclient.grpc
from helpers.image_answers import image_file
from helpers.running_server import step_processes, triton_server
from helpers.served_repository import demo_repository
from medimageparse_serving.step_environment import ACCESS_LOG
from PIL.PngImagePlugin import PngInfo
from tritonclient.utils import InferenceServerException

PROMPT, HEADER, FILE_NAME = "zebrafish-7391", "wolverine-2846", "albatross-6054"
PLANTED = (PROMPT, HEADER, FILE_NAME)
# what is killed: a step, then the model itself
KILLED = {"medimageparse_3d": ("decode_volume", "medimageparse_3d"), "medimageparse": ("decode_image", "medimageparse")}


def volume_file():
    """A small volume with something planted in every text field and in gzip's own header."""
    voxels = np.random.default_rng(0).integers(0, 255, (40, 32, 3), dtype=np.uint8)
    image = nib.Nifti1Image(voxels, np.diag([-2.0, 2, 5, 1]))
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = HEADER
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", HEADER.encode()))
    file = io.BytesIO()
    with gzip.GzipFile(FILE_NAME, "wb", fileobj=file) as archive:
        archive.write(image.to_bytes())
    return file.getvalue()


def picture_file():
    notes = PngInfo()
    notes.add_text("Patient", HEADER)
    return image_file(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8), pnginfo=notes)


VOLUME, PICTURE = volume_file(), picture_file()
WRONG = {
    "another file": {"image": f"name: {FILE_NAME}, {HEADER}".encode()},
    "no base64": {"image": f"{FILE_NAME}!".encode() * 9},
    "file cut short": {"image": VOLUME[: len(VOLUME) // 2]},
    "picture cut short": {"image": PICTURE[: len(PICTURE) // 2]},
    "headers only": {"image": gzip.decompress(VOLUME)[:500]},
    "too many prompts": {"text": " & ".join([PROMPT] * 65).encode()},
    "too long a prompt": {"text": (PROMPT * 2000).encode()},
    "empty prompt": {"text": f"{PROMPT} & &".encode()},
    "unknown option": {"output": PROMPT.encode()},
}


def send_grpc(server, model, inputs, output="report"):
    """What was answered."""
    tensors = [tritonclient.grpc.InferInput(name, [1], "BYTES") for name in inputs]
    for tensor, value in zip(tensors, inputs.values(), strict=True):
        tensor.set_data_from_numpy(np.array([value], np.object_))
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as triton:
        return triton.infer(model, tensors, client_timeout=60).as_numpy(output).item().decode()


def send_json(server, model, inputs):
    """The same by /generate, where images are base64."""
    texts = {name: value.decode() for name, value in inputs.items() if name != "image"}
    body = json.dumps({"image": base64.b64encode(inputs["image"]).decode()} | texts).encode()
    return post(server, model, body)


def post(server, model, body):
    request = urllib.request.Request(f"http://{server.http_url}/v2/models/{model}/generate", body)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def refusal(send, server, model, what):
    """The sentence of a request that fails."""
    with pytest.raises((InferenceServerException, urllib.error.HTTPError)) as refused:
        send(server, model, what)
    error = refused.value
    return error.message() if isinstance(error, InferenceServerException) else error.read().decode()


@dataclass
class Told:
    """What was answered to good, wrong and failing requests, a label map, and the whole log."""

    answers: list[str]
    refusals: list[str]
    failures: list[str]
    nifti_file: str
    log: str


@pytest.fixture(scope="module")
def access_log():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ACCESS_LOG, "json")
        yield


@pytest.fixture(scope="module")
def told(tmp_path_factory, weights, tiny_2d_networks, access_log):
    repository = demo_repository(tmp_path_factory.mktemp("told") / "model_repository", weights)
    shutil.copytree(tiny_2d_networks, repository, dirs_exist_ok=True)
    path = tmp_path_factory.mktemp("told_log") / "triton.log"
    answers, refusals, failures = [], [], []
    with (
        path.open("w") as log,
        triton_server(repository, log=log, verbose=True, flags=("--log-verbose=2",)) as server,
    ):
        nifti_file = send_grpc(server, "medimageparse_3d", {"image": VOLUME, "text": PROMPT.encode()}, "nifti_file")
        for model, image in {"medimageparse_3d": VOLUME, "medimageparse": PICTURE}.items():
            good = {"image": image, "text": f"liver & {PROMPT}".encode()}
            for send in (send_grpc, send_json):
                answers.append(send(server, model, good))
                refusals += [refusal(send, server, model, good | change) for change in WRONG.values()]
            for body in (f'{{"text": "{PROMPT}", "image": "{FILE_NAME}"', f'{{"text": {{"{PROMPT}": 1}}}}', PROMPT):
                refusal(post, server, model, body.encode())
            for step in KILLED[model]:
                for process in step_processes(server, step):
                    os.kill(process, signal.SIGKILL)
                failures += [refusal(send, server, model, good) for send in (send_grpc, send_json)]
    return Told(answers, refusals, failures, nifti_file, path.read_text())


def test_the_requests_end_as_they_should(told):
    assert len(told.answers) == 4
    assert all(PROMPT in answer for answer in told.answers)  # the report, which is the caller's
    assert len(told.refusals) == 4 * len(WRONG)
    assert len(told.failures) == 8
    assert all(re.search("not healthy| failed| died", failure) for failure in told.failures)


def test_no_planted_string_is_in_the_log(told):
    kinds = {line[0] for line in told.log.splitlines() if re.match(r"[A-Z]\d{4} ", line)}
    assert kinds >= {"I", "E"}  # what is shown by default, and the rest
    assert {"answered", "refused", "failed"} <= set(re.findall(r'"outcome": "(\w+)"', told.log))  # in the access lines
    assert "infer_request" in told.log or "inference_request" in told.log  # the verbose log tells of requests
    for planted in PLANTED:
        assert planted not in told.log
        assert base64.b64encode(planted.encode()).decode()[:-4] not in told.log


def test_no_planted_string_is_in_a_refusal(told):
    for sentence in told.refusals + told.failures:
        assert not [planted for planted in PLANTED if planted in sentence]


def test_the_label_map_holds_no_text_of_the_volume(told):
    content = gzip.decompress(base64.b64decode(json.loads(told.nifti_file)["data"]))
    labels, sent = (nib.Nifti1Image.from_bytes(data) for data in (content, gzip.decompress(VOLUME)))
    assert np.array_equal(labels.affine, sent.affine)
    for field in ("descrip", "aux_file", "intent_name", "db_name", "data_type"):
        assert labels.header[field].item() == b""
    assert not labels.header.extensions
    assert not [planted for planted in PLANTED if planted.encode() in content]
