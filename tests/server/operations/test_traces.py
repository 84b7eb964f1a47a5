"""Traces of a real server at a collector: every step is in them, and nothing of what was sent."""

import base64
import gzip
import io
import json
import shutil
import urllib.error
import urllib.request
import uuid
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from helpers.collector import collector
from helpers.inference import IMAGE_OUTPUTS, OUTPUTS, executions, streaming, tensors_of
from helpers.running_server import triton_server, wait_until
from helpers.served_repository import demo_repository
from medimageparse_contract.models import MODEL_2D, MODEL_3D, STREAMS
from medimageparse_contract.version import VERSION
from medimageparse_serving.launch.tracing import trace_flags
from tritonclient.utils import InferenceServerException

PROMPT, HEADER, FILE_NAME = "zebrafish-7391", "wolverine-2846", "albatross-6054"
AT_ONCE = "--trace-config=opentelemetry,bsp_schedule_delay=100"
STEPS_2D = {"decode_image", "tokenize_prompts", "text_encoder", "image_encoder", "mask_decoder", "encode_probabilities"}
STEPS_3D = {"decode_volume", "tokenize_prompts", "text_encoder_3d", "encode_masks"}
STEPS_3D |= {"image_encoder_3d", "mask_decoder_3d"}
# all that a span says besides names, numbers of spans, and times
ATTRIBUTES = {f"triton.{name}" for name in ("model_name", "model_version", "trace_id", "trace_parent_id", "request_id")}
SPAN = {"traceId", "spanId", "parentSpanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano"}
SPAN |= {"attributes", "events", "traceState", "status", "flags"}


@pytest.fixture(scope="module")
def traced(tmp_path_factory, weights, tiny_2d_networks):
    """A server of both models that sends its traces to `collector`."""
    repository = demo_repository(tmp_path_factory.mktemp("traced") / "model_repository", weights)
    shutil.copytree(tiny_2d_networks, repository, dirs_exist_ok=True)
    with collector() as found, triton_server(repository, flags=(*trace_flags(found.url, 1), AT_ONCE)) as server:
        yield SimpleNamespace(server=server, collector=found)


def planted_volume():
    """A small volume with something planted in every text field and in gzip's own header."""
    image = nib.Nifti1Image(
        np.random.default_rng(0).integers(0, 255, (40, 32, 9), dtype=np.uint8), np.diag([-2, 2, 5, 1])
    )
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = HEADER
    file = io.BytesIO()
    with gzip.GzipFile(FILE_NAME, "wb", fileobj=file) as archive:
        archive.write(image.to_bytes())
    return file.getvalue()


def ask(server, model, inputs, outputs, request_id="", transport=tritonclient.grpc, **headers):
    tensors, requested = tensors_of(inputs, outputs, transport)
    url = server.grpc_url if transport is tritonclient.grpc else server.http_url
    with transport.InferenceServerClient(url) as triton:
        headers = {"x-patient": HEADER, **headers}
        answer = triton.infer(model, tensors, outputs=requested, headers=headers, request_id=request_id)
        return {name: answer.as_numpy(name) for name in outputs}


def trace_of(traced, request_id, last="InferRequest"):
    """The spans of a request, once its trace has the span that ends last."""

    def found():
        return [
            spans
            for spans in traced.collector.traces()
            if any(span["name"] == last for span in spans)
            and any(value_of(span, "triton.request_id") == request_id for span in spans)
        ]

    wait_until(found)
    [spans] = found()
    return spans


def value_of(span, key):
    return next((next(iter(each["value"].values())) for each in span.get("attributes", ()) if each["key"] == key), None)


def test_a_volumes_trace_has_each_window_and_each_step_below_the_request(traced, request_of, answer):
    answered = ask(traced.server, MODEL_3D, request_of(), OUTPUTS, "a-volume")
    spans = trace_of(traced, "a-volume")
    names = [span["name"] for span in spans]
    assert {MODEL_3D, "segment_window_3d", *STEPS_3D} == set(names) - {"InferRequest", "compute"}
    assert names.count("segment_window_3d") == 2  # five slices are two windows
    by_id = {span["spanId"]: span for span in spans}
    for span in spans:
        while span["name"] != "InferRequest":
            span = by_id[span["parentSpanId"]]
        assert not span.get("parentSpanId")
    for name in ("nifti_file", "label_map", "scores"):
        assert np.array_equal(answered[name], answer[name])  # as without traces


def test_an_images_trace_has_each_step(traced, image):
    ask(traced.server, MODEL_2D, {"image": image, "text": b"left lung"}, IMAGE_OUTPUTS, "an-image")
    names = {span["name"] for span in trace_of(traced, "an-image")}
    assert names == {"InferRequest", "compute", MODEL_2D, "segment_pixels", *STEPS_2D}


def test_a_streams_trace_has_each_step(traced, request_of):
    outputs = ("progress", "report")
    with streaming(traced.server, STREAMS[MODEL_3D], request_of(), outputs, request_id="a-stream") as responses:
        assert len(list(responses)) > 2
    # of a caller who leaves with the last message Triton sometimes drops the span of the whole
    assert {span["name"] for span in trace_of(traced, "a-stream", last=STREAMS[MODEL_3D])} >= STEPS_3D


# tritonserver 2.51 overlooks the header of two in a hundred requests over gRPC, and of none over HTTP
@pytest.mark.parametrize(("transport", "tries"), [(tritonclient.http, 1), (tritonclient.grpc, 9)])
def test_a_callers_own_trace_goes_on(traced, image, transport, tries):
    inputs, span = {"image": image, "text": b"left lung"}, "b7ad6b7169203331"
    for number in range(tries):
        trace, request_id = uuid.uuid4().hex, f"{transport.__name__}-{number}"
        ask(traced.server, MODEL_2D, inputs, IMAGE_OUTPUTS, request_id, transport, traceparent=f"00-{trace}-{span}-01")
        spans = trace_of(traced, request_id)
        if {each["traceId"] for each in spans} == {trace}:
            break
    else:
        pytest.fail("no request went on in its caller's trace")
    assert [each["parentSpanId"] for each in spans if each["name"] == "InferRequest"] == [span]


def test_nothing_that_was_sent_is_in_a_trace(traced):
    volume = planted_volume()
    good = {"image": volume, "text": f"liver & {PROMPT}".encode()}
    [report] = ask(traced.server, MODEL_3D, good, ["report"], "planted").values()
    assert PROMPT in report.item().decode()
    for number, wrong in enumerate([{"image": f"{FILE_NAME}, {HEADER}".encode()}, {"output": PROMPT.encode()}]):
        with pytest.raises(InferenceServerException):
            ask(traced.server, MODEL_3D, good | wrong, ["report"], f"refused-{number}")
        trace_of(traced, f"refused-{number}")
    spans = trace_of(traced, "planted")
    assert len(spans) > 10
    told = b"".join(traced.collector.bodies)
    for planted in (PROMPT, HEADER, FILE_NAME):
        assert planted.encode() not in told
        assert base64.b64encode(planted.encode())[:-4] not in told
    for span in spans:
        assert {each["key"] for each in span.get("attributes", ())} <= ATTRIBUTES
        assert span.keys() <= SPAN
        for event in span["events"]:
            assert event.keys() == {"name", "timeUnixNano"}
            assert event["name"].isupper()


def test_the_collector_learns_which_service_and_which_version(traced, image):
    ask(traced.server, MODEL_2D, {"image": image, "text": b"left lung"}, IMAGE_OUTPUTS, "who")
    trace_of(traced, "who")
    resources = traced.collector.resources()
    assert (resources["service.name"], resources["service.version"]) == ("medimageparse", VERSION)
    assert traced.collector.paths == {"/v1/traces"}


def set_traces(server, settings):
    """The status of Triton's own API for it, with the operator's key."""
    body, url = json.dumps(settings).encode(), f"http://{server.http_url}/v2/trace/setting"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, server.admin_headers), timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_operators_key_puts_no_tensors_into_a_trace_either(traced, both_models, request_of):
    assert set_traces(traced.server, {"trace_level": ["TIMESTAMPS", "TENSORS"]}) == 200
    ask(traced.server, MODEL_3D, request_of(prompts=[PROMPT]), ["report"], "with-tensors")
    for span in trace_of(traced, "with-tensors"):
        assert {each["key"] for each in span.get("attributes", ())} <= ATTRIBUTES
    assert PROMPT.encode() not in b"".join(traced.collector.bodies)
    # a server without traces has no file that they could go to, and takes none
    assert set_traces(both_models, {"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": "1"}) == 400
    assert set_traces(both_models, {"trace_file": "/tmp/trace.json"}) == 501


def test_who_gives_up_while_traced_harms_nobody(traced, request_of, answer, volume):
    long = nib.Nifti1Image(np.tile(np.asanyarray(volume.dataobj), 40), volume.affine)
    tensors, _ = tensors_of(request_of(long), ["report"], tritonclient.grpc)
    outcome = []
    with tritonclient.grpc.InferenceServerClient(traced.server.grpc_url) as triton:
        for _ in range(3):
            before, outcome = executions(traced.server, "image_encoder_3d"), []
            call = triton.async_infer(MODEL_3D, tensors, callback=lambda result, error, o=outcome: o.append(error))
            wait_until(lambda before=before: executions(traced.server, "image_encoder_3d") >= before + 2)
            call.cancel()
            wait_until(lambda o=outcome: o)
    assert np.array_equal(ask(traced.server, MODEL_3D, request_of(), OUTPUTS)["label_map"], answer["label_map"])
    assert traced.server.process.poll() is None


def test_a_collector_that_fails_harms_nobody(traced, request_of, answer):
    n_before, traced.collector.is_broken = len(traced.collector.bodies), True
    try:
        for _ in range(3):
            answered = ask(traced.server, MODEL_3D, request_of(), OUTPUTS)
            assert np.array_equal(answered["label_map"], answer["label_map"])
        wait_until(lambda: len(traced.collector.bodies) > n_before)
    finally:
        traced.collector.is_broken = False
