"""More than the server takes: the queue is bounded, the rest is UNAVAILABLE at once, and what was taken is answered."""

import base64
import json
import re
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
import tritonclient.grpc
from helpers.image_answers import image_file
from helpers.inference import streaming
from helpers.running_server import triton_server
from helpers.served_repository import demo_repository
from medimageparse_client import Client, RequestTimeout, ServerUnavailable
from tritonclient.utils import InferenceServerException

from .test_cancel import executions, wait_until

QUEUE, INSTANCES = 3, 2  # places in the queue of this server, and requests under way
N_REQUESTS = 24
PROMPTS = ["liver", "spleen"]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A server of both demos whose queues are short."""
    folder = demo_repository(tmp_path_factory.mktemp("narrow") / "model_repository")
    for model in ("medimageparse_3d", "medimageparse_3d_stream", "medimageparse"):
        config = folder / model / "config.pbtxt"
        text, n_changed = re.subn(r"max_queue_size: \d+", f"max_queue_size: {QUEUE}", config.read_text())
        assert n_changed == 1
        config.write_text(text)
    with triton_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def ask(narrow, volume, picture):
    """ask(model, protocol) -> what one request gets, as something to compare, and the seconds that it took."""
    images = {"medimageparse_3d": volume, "medimageparse": image_file(picture.repeat(10, 0).repeat(10, 1))}

    def ask(model, protocol, timeout_s=300):
        url = narrow.grpc_url if protocol == "grpc" else narrow.http_url
        with Client(url, protocol=protocol, timeout_s=timeout_s, retries=0) as client:
            started = time.monotonic()
            try:
                segment = client.segment if model == "medimageparse_3d" else client.segment_image
                found = segment(images[model], PROMPTS).label_map.tobytes()
            except (ServerUnavailable, RequestTimeout) as error:
                found = error
            return found, time.monotonic() - started

    return ask


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("model", ["medimageparse_3d", "medimageparse"])
def test_a_full_queue_is_said_at_once_and_the_rest_is_answered(ask, model, protocol):
    alone, _ = ask(model, protocol)
    assert isinstance(alone, bytes)
    with ThreadPoolExecutor(N_REQUESTS) as executor:
        outcomes = list(executor.map(lambda _: ask(model, protocol), range(N_REQUESTS)))
    answered = [seconds for found, seconds in outcomes if found == alone]
    refused = [(found, seconds) for found, seconds in outcomes if isinstance(found, ServerUnavailable)]
    assert len(answered) + len(refused) == N_REQUESTS  # nothing else happened, and no answer was another one
    assert len(answered) >= QUEUE + INSTANCES
    assert len(refused) >= 1
    assert all(str(error).endswith("it is busy and its queue is full; try again later") for error, _ in refused)
    assert min(seconds for _, seconds in refused) < max(answered)
    assert ask(model, protocol)[0] == alone


def test_streams_too_wait_in_a_bounded_queue(narrow, request_of):
    def ask(_):
        try:
            with streaming(narrow, "medimageparse_3d_stream", request_of(), ["progress", "label_map"]) as responses:
                *_, last = responses
            return last["label_map"].tobytes()
        except InferenceServerException as error:
            return error.message().rpartition("] ")[2]

    alone = ask(0)
    assert isinstance(alone, bytes)
    with ThreadPoolExecutor(N_REQUESTS) as executor:
        outcomes = list(executor.map(ask, range(N_REQUESTS)))
    assert outcomes.count(alone) >= QUEUE + INSTANCES
    assert set(outcomes) == {alone, "Exceeds maximum queue size"}


def test_over_http_a_full_queue_is_503(narrow, request_of):
    values = {name: base64.b64encode(value).decode() for name, value in request_of().items()} | {"text": "liver"}
    inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [value]} for name, value in values.items()]
    body = json.dumps({"inputs": inputs, "outputs": [{"name": "report"}]}).encode()
    url = f"http://{narrow.http_url}/v2/models/medimageparse_3d/infer"

    def status(_):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body), timeout=300) as response:
                return response.status
        except urllib.error.HTTPError as error:
            with error:
                words = json.load(error)["error"]
            return error.code if words.endswith("Exceeds maximum queue size") else words

    with ThreadPoolExecutor(N_REQUESTS) as executor:
        assert set(executor.map(status, range(N_REQUESTS))) == {200, 503}


def test_a_wait_longer_than_the_request_allows_is_over(narrow, volume):
    """The time-out that a request carries ends its wait in the queue, for HTTP clients that only hang up, too."""
    stacked = nib.concat_images([volume] * 60, axis=2)
    decoded = executions(narrow, "decode_volume")
    inputs = {"image": stacked.to_bytes(), "text": b"liver"}
    tensors = []
    for name, value in inputs.items():
        tensors.append(tritonclient.grpc.InferInput(name, [1], "BYTES"))
        tensors[-1].set_data_from_numpy(np.array([value], np.object_))
    with tritonclient.grpc.InferenceServerClient(narrow.grpc_url) as triton:
        calls = [
            triton.async_infer("medimageparse_3d", tensors, callback=lambda result, error: None)
            for _ in range(INSTANCES + 1)
        ]
        wait_until(lambda: executions(narrow, "decode_volume") == decoded + INSTANCES)
        with pytest.raises(InferenceServerException, match="Request timeout expired") as waited:
            triton.infer("medimageparse_3d", tensors, timeout=200_000)
        assert waited.value.status() == "StatusCode.UNAVAILABLE"
        for call in calls:
            call.cancel()
