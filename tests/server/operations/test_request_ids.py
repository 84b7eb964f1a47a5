"""A caller's id goes into the report, the access line and the lines of errors; a word that is no id goes nowhere."""

import json
import os
import re
import signal
from contextlib import suppress

import httpx2
import nibabel as nib
import numpy as np
import pytest
import tritonclient.grpc
from helpers.image_answers import image_file
from helpers.inference import streaming, tensors_of
from helpers.running_server import PATIENCE_S, serving, step_processes, triton_server, wait_until
from medimageparse_client import Client
from medimageparse_client.errors import InvalidRequest
from medimageparse_contract.models import MODEL_2D, MODEL_3D, PUBLIC_MODELS, STREAMS
from medimageparse_demo.phantoms import make_phantom
from medimageparse_serving.step_environment import ACCESS_LOG
from tritonclient.utils import InferenceServerException

PLANTED = "zebrafish-7391"
NO_IDS = (f"{PLANTED} 1970", f"{PLANTED}/x", PLANTED * 5)


@pytest.fixture(scope="module")
def service(tmp_path_factory, both_demos):
    flags = ("--access-log=json", "--verbose", "--gateway-port=0", "--canary-interval=0.1")  # canaries have no lines
    with serving(tmp_path_factory.mktemp("ids") / "log", both_demos, *flags) as service:
        yield service


@pytest.fixture(scope="module")
def files():
    """By model: a small volume, a small picture."""
    phantom = make_phantom(4, "CT")
    volume = phantom.intensities[24:168:2, 24:168:2, 20:23]
    return {
        MODEL_3D: nib.Nifti1Image(volume, phantom.affine).to_bytes(),
        MODEL_2D: image_file(np.zeros((40, 60, 3), np.uint8)),
    }


def infer(address, model, image, request_id, text=b"liver"):
    """The report."""
    tensors, outputs = tensors_of({"image": image, "text": text}, ["report"], tritonclient.grpc)
    with tritonclient.grpc.InferenceServerClient(address) as triton:
        answer = triton.infer(model, tensors, outputs=outputs, request_id=request_id, client_timeout=PATIENCE_S)
    return json.loads(answer.as_numpy("report").item())


def access_lines(service):
    return [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith('{"time": ')]


def lines_of(service, request_id):
    return [line for line in access_lines(service) if line.get("request_id") == request_id]


def line_of(service, request_id):
    """The one access line of a request, which may come a moment after the answer."""
    wait_until(lambda: lines_of(service, request_id))
    [line] = lines_of(service, request_id)
    return line


@pytest.mark.parametrize("model", PUBLIC_MODELS)
def test_the_id_is_in_the_report_and_in_one_line(service, files, model):
    request_id = f"good.{model}"
    assert infer(service.grpc, model, files[model], request_id)["request_id"] == request_id
    line = line_of(service, request_id)
    assert (line["model"], line["outcome"], line["prompts"]) == (model, "answered", 1)
    assert line["slices"] == (3 if model == MODEL_3D else 1)
    assert line["milliseconds"] > 0


def test_the_gateways_header_is_the_id_of_the_server(service, files):
    form = {"files": {"image": files[MODEL_2D]}, "data": {"prompt": ["liver"]}}
    for accept in ("application/json", "text/event-stream"):
        request_id = f"gateway.{accept.partition('/')[0]}"
        headers = {"accept": accept, "x-request-id": request_id}
        answer = httpx2.post(f"http://{service.gateway}/v1/images", headers=headers, timeout=PATIENCE_S, **form)
        assert answer.headers["x-request-id"] == request_id
        assert f'"request_id": "{request_id}"' in answer.text
        wait_until(lambda request_id=request_id: len(lines_of(service, request_id)) == 2)
        gateways, servers = sorted(lines_of(service, request_id), key=lambda line: "model" in line)
        assert (gateways["route"], gateways["status"], gateways["caller"]) == ("/v1/images", 200, "")
        assert servers["outcome"] == "answered"


def test_what_is_no_id_at_the_gateway_goes_no_further(service, files):
    form = {"files": {"image": files[MODEL_2D]}, "data": {"prompt": ["liver"]}}
    answer = httpx2.post(
        f"http://{service.gateway}/v1/images", headers={"x-request-id": NO_IDS[0]}, timeout=PATIENCE_S, **form
    )
    wait_until(lambda: len(lines_of(service, answer.headers["x-request-id"])) == 2)
    assert PLANTED not in str(answer.headers)
    assert PLANTED not in service.log.read_text()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("given", ["from-the-client", None])
def test_the_client_sends_it_and_makes_one_otherwise(service, files, protocol, given):
    given = given and f"{given}-{protocol}"
    url = service.grpc if protocol == "grpc" else service.http
    with Client(url, protocol=protocol) as client:
        report = client.segment(files[MODEL_3D], "liver", request_id=given).report
        image = client.segment_image(files[MODEL_2D], "liver").report
    assert report["request_id"] == (given or report["request_id"])
    assert line_of(service, report["request_id"])["model"] == MODEL_3D
    assert line_of(service, image["request_id"])["model"] == MODEL_2D


def test_an_error_of_the_client_names_the_line(service):
    with Client(service.grpc) as client, pytest.raises(InvalidRequest) as refused:
        client.segment_image(b"\x89PNG\r\n\x1a\n no picture", "liver")
    assert line_of(service, refused.value.request_id)["outcome"] == "refused"


@pytest.mark.parametrize(("model", "stream"), STREAMS.items())
def test_so_it_is_in_a_stream(service, files, model, stream):
    request_id, inputs = f"streamed:{model}", {"image": files[model], "text": b"liver"}
    service.grpc_url = service.grpc
    with streaming(service, stream, inputs, ["progress", "report"], request_id=request_id) as responses:
        reports = [json.loads(response["report"].item()) for response in responses if "report" in response]
    assert [report["request_id"] for report in reports] == [request_id]
    assert line_of(service, request_id)["model"] == stream


def test_a_refused_request_has_a_line_that_names_the_step(service):
    with pytest.raises(InferenceServerException):
        infer(service.grpc, MODEL_3D, b"no volume", "refused-1")
    line = line_of(service, "refused-1")
    assert (line["outcome"], line["refused_by"]) == ("refused", "decode_volume")


@pytest.mark.parametrize("model", PUBLIC_MODELS)
@pytest.mark.parametrize("word", NO_IDS)
def test_a_word_that_is_no_id_stands_nowhere(service, files, model, word):
    before = len(access_lines(service))
    assert "request_id" not in infer(service.grpc, model, files[model], word)
    with suppress(InferenceServerException):
        infer(service.grpc, model, b"no file", word)
    wait_until(lambda: len(access_lines(service)) == before + 2)
    assert [line["request_id"] for line in access_lines(service)[before:]] == ["", ""]
    assert PLANTED not in service.log.read_text()


@pytest.mark.parametrize("log_format", ["default", "ISO8601"])
def test_the_line_of_an_error_names_the_id_at_every_log_format(tmp_path, monkeypatch, images_alone, files, log_format):
    monkeypatch.setenv(ACCESS_LOG, "text")
    path = tmp_path / "log"
    with path.open("w") as log, triton_server(images_alone, log=log, flags=(f"--log-format={log_format}",)) as server:
        for process in step_processes(server, "decode_image"):
            os.kill(process, signal.SIGKILL)
        for word in ("failed-1", NO_IDS[0]):
            with pytest.raises(InferenceServerException):
                infer(server.grpc_url, MODEL_2D, files[MODEL_2D], word)
        wait_until(lambda: path.read_text().count("outcome=failed") == 2)
    told = path.read_text()
    assert re.search(r"decode_image: .*\(request failed-1\)", told)
    assert re.search(rf"^time=\S+ level=info request_id=failed-1 model={MODEL_2D} outcome=failed ", told, re.MULTILINE)
    assert PLANTED not in told
