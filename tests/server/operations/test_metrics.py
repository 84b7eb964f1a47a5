"""What Prometheus reads from a running service: each request counts by how it ended, and canaries apart."""

import re
import urllib.request
from types import SimpleNamespace

import pytest
import tritonclient.grpc
from helpers.inference import IMAGE_OUTPUTS, OUTPUTS, streaming, tensors_of
from helpers.running_server import serving, wait_until
from medimageparse_contract.models import MODEL_2D, MODEL_3D, STREAMS
from medimageparse_serving.launch.service_metrics import FAMILIES
from tritonclient.utils import InferenceServerException

OUTCOMES = ("answered", "refused", "failed", "cancelled")
TEXT = b"liver & spleen"
SLICES = {MODEL_3D: 5, MODEL_2D: 1}  # of what is sent
DECODERS = {MODEL_3D: "decode_volume", MODEL_2D: "decode_image"}
PUBLIC = [(model, name) for model, stream in STREAMS.items() for name in (model, stream)]


@pytest.fixture(scope="module")
def service(tmp_path_factory, both_demos):
    log = tmp_path_factory.mktemp("metrics") / "log"
    with serving(log, both_demos, "--canary-interval", "0.2") as service:
        yield service


@pytest.fixture(scope="module")
def grown(service, request_of, image):
    """grown(counter, label=...) by an answered and a refused request to each public model."""
    before = scrape(service.metrics)
    for model, name in PUBLIC:
        image_sent = request_of()["image"] if model == MODEL_3D else image
        outputs = OUTPUTS if model == MODEL_3D else IMAGE_OUTPUTS
        ask(service, name, {"image": image_sent, "text": TEXT}, outputs)
        with pytest.raises(InferenceServerException):
            ask(service, name, {"image": b"no image", "text": TEXT}, outputs)
    after = scrape(service.metrics)

    def grown(counter, **labels):
        return sum(
            value - before[name, pairs]
            for (name, pairs), value in after.items()
            if name == counter and labels.items() <= dict(pairs).items()
        )

    return grown


def ask(service, name, inputs, outputs):
    if name in STREAMS.values():
        server = SimpleNamespace(grpc_url=service.grpc)
        with streaming(server, name, inputs, outputs) as responses:
            list(responses)
        return
    with tritonclient.grpc.InferenceServerClient(service.grpc) as triton:
        tensors, requested = tensors_of(inputs, outputs, tritonclient.grpc)
        triton.infer(name, tensors, outputs=requested)


def scrape(url):
    """(name, labels) -> value"""
    with urllib.request.urlopen(url, timeout=30) as answer:
        samples = re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", answer.read().decode(), re.MULTILINE)
    return {(name, frozenset(re.findall(r'(\w+)="(.*?)"', labels))): float(value) for name, labels, value in samples}


@pytest.mark.parametrize(("model", "name"), PUBLIC)
def test_each_request_counts_once_by_how_it_ended(grown, model, name):
    found = {outcome: grown("medimageparse_requests_total", model=name, outcome=outcome) for outcome in OUTCOMES}
    assert found == {"answered": 1, "refused": 1, "failed": 0, "cancelled": 0}
    assert grown("medimageparse_refusals_total", model=name) == 1
    assert grown("medimageparse_refusals_total", model=name, by=DECODERS[model]) == 1


@pytest.mark.parametrize(("model", "name"), PUBLIC)
def test_work_is_that_of_answered_requests(grown, model, name):
    assert grown("medimageparse_slices_total", model=name) == SLICES[model]
    assert grown("medimageparse_prompts_total", model=name) == 2
    assert grown("medimageparse_answer_seconds_count", model=name) == 1
    assert grown("medimageparse_answer_seconds_bucket", model=name, le="+Inf") == 1
    assert 0 < grown("medimageparse_answer_seconds_sum", model=name) < 600


def test_canaries_are_counted_apart(service, grown):
    def canaries():
        return {
            dict(labels)["model"]: value
            for (name, labels), value in scrape(service.metrics).items()
            if name == "medimageparse_canaries_total" and ("outcome", "answered") in labels
        }

    def requests():
        return {
            key: value for key, value in scrape(service.metrics).items() if key[0] == "medimageparse_requests_total"
        }

    first, then = requests(), canaries()
    wait_until(lambda: all(canaries()[model] > then[model] for model in (MODEL_3D, MODEL_2D)))
    assert requests() == first


def test_the_supervisor_tells_of_itself(service):
    found = scrape(service.probes + "/metrics")
    assert {name for name, _ in found} == set(FAMILIES)
    values = {name: value for (name, labels), value in found.items() if not labels}
    assert (values["medimageparse_ready"], values["medimageparse_restarts_total"]) == (1, 0)
    served = {dict(labels)["model"] for name, labels in found if name == "medimageparse_model_info"}
    assert served == {MODEL_3D, MODEL_2D}
