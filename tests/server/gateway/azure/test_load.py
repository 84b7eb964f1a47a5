"""More than the queue takes, longer than the limit, hang-ups, failing steps: what clients see, and what Triton does."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest
from helpers.azure_requests import table_of
from helpers.azure_toolkit import Refused, Toolkit
from helpers.gateway_process import gateway_process
from helpers.image_answers import image_file
from helpers.running_server import let_wait, triton_server, wait_until
from helpers.served_repository import demo_repository

from ...operations.test_cancel import N_WINDOWS, executions, work_after

QUEUE, INSTANCES = 3, 2  # places in the queue of the narrow server, and requests under way
N_CALLS = 12

FAILING = """
from medimageparse_serving.triton.onnxruntime_model import TritonPythonModel as Network


class TritonPythonModel(Network):
    def execute(self, requests):
        raise RuntimeError("it fails")
"""


@pytest.fixture(scope="module")
def hold(tmp_path_factory):
    """While this file is there, the narrow server computes no image."""
    return tmp_path_factory.mktemp("hold") / "hold"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory, hold):
    """A gateway before a server whose queue is short, whose images can be held, and whose volumes fail."""
    repository = demo_repository(tmp_path_factory.mktemp("narrow") / "model_repository")
    config = repository / "medimageparse" / "config.pbtxt"
    text = config.read_text()
    assert "max_queue_size: 32" in text
    config.write_text(text.replace("max_queue_size: 32", f"max_queue_size: {QUEUE}"))
    let_wait(repository, "image_encoder", hold)
    (repository / "text_encoder_3d" / "1" / "onnxruntime_model.py").write_text(FAILING)
    folder = tmp_path_factory.mktemp("azure") / "narrow"
    with triton_server(repository) as server, gateway_process(folder, server.grpc_url) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def impatient(tmp_path_factory, demos):
    """A gateway that waits a second."""
    with gateway_process(tmp_path_factory.mktemp("azure") / "impatient", demos.grpc_url, timeout_s=1.0) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def picture(xrays):
    return image_file(xrays[0][::2, ::2])


def test_a_full_queue_is_429_and_what_was_taken_is_answered(narrow, hold, picture):
    expected = narrow.ask("/score", table_of(picture))
    assert expected.status == 200
    hold.touch()
    with ThreadPoolExecutor(N_CALLS) as pool:
        calls = [pool.submit(narrow.ask, "/score", table_of(picture)) for _ in range(N_CALLS)]
        try:
            wait_until(lambda: sum(call.done() for call in calls) == N_CALLS - QUEUE - INSTANCES)
        finally:
            hold.unlink()
    answers = [call.result() for call in calls]
    refused = [answer for answer in answers if answer.status == 429]
    assert len(refused) == N_CALLS - QUEUE - INSTANCES
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert all("try again later" in answer.json()["error"]["message"] for answer in refused)
    assert {answer.body for answer in answers if answer.status != 429} == {expected.body}


def test_rows_wait_for_a_place_in_the_queue(narrow, picture):
    """Four requests have eight rows under way, more than the server takes."""
    expected = narrow.ask("/score", table_of(picture)).json()

    def rows_of(_):
        return json.loads(Toolkit(f"{narrow.url}/score", wait_scale=0.05).post(table_of(*[picture] * 5)))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(rows_of, range(4))) == [expected * 5] * 4


def test_forty_calls_of_the_toolkit_at_once_all_succeed(gateway, xrays):
    [expected] = Toolkit(f"{gateway.url}/score").submit(xrays[:1], ["heart"])

    def masks_of(_):
        [result] = Toolkit(f"{gateway.url}/score", wait_scale=0.1).submit(xrays[:1], ["heart"])
        return result["image_features"]

    with ThreadPoolExecutor(40) as pool:
        for masks in pool.map(masks_of, range(40)):
            assert np.array_equal(masks, expected["image_features"])


def test_a_failing_step_is_424_and_one_call(narrow, volume):
    toolkit = Toolkit(f"{narrow.url}/score")
    with pytest.raises(Refused) as refused:
        toolkit.post(table_of(volume.to_bytes()))
    assert toolkit.calls == [424]
    headers = refused.value.headers
    assert headers["ms-azureml-model-error-statuscode"] == "500"
    assert headers["ms-azureml-model-error-reason"] == "model_error"
    assert "retry-after" not in headers
    assert "it fails" not in refused.value.body.decode()


def test_the_time_limit_is_408_and_ends_tritons_work(impatient, demos, long_volume):
    before, encoded = executions(demos, "image_encoder_3d"), executions(demos, "encode_masks")
    toolkit = Toolkit(f"{impatient.url}/score")
    with pytest.raises(Refused) as refused:
        toolkit.post(table_of(long_volume, text="liver"))
    assert toolkit.calls == [408]
    assert "retry-after" not in refused.value.headers
    given_up, done = work_after(demos, "image_encoder_3d", before, begun=0)
    assert done <= given_up + 3 < N_WINDOWS
    assert executions(demos, "encode_masks") == encoded


def test_a_caller_who_hangs_up_ends_tritons_work(gateway, demos, long_volume):
    before, encoded = executions(demos, "image_encoder_3d"), executions(demos, "encode_masks")
    body = json.dumps(table_of(long_volume, text="liver")).encode()
    address = urlsplit(gateway.url)
    with socket.create_connection((address.hostname, address.port)) as caller:
        head = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        caller.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        wait_until(lambda: executions(demos, "image_encoder_3d") >= before + 2)
    given_up, done = work_after(demos, "image_encoder_3d", before)
    assert done <= given_up + 3 < N_WINDOWS
    assert executions(demos, "encode_masks") == encoded
