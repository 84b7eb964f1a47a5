"""What Prometheus reads from a running service: each request counts by how it ended, and canaries apart."""

import json
import re
import shutil
import subprocess
import urllib.request
from types import SimpleNamespace
from urllib.parse import urlencode, urlsplit

import pytest
import tritonclient.grpc
from helpers.inference import IMAGE_OUTPUTS, OUTPUTS, streaming, tensors_of
from helpers.places import ROOT
from helpers.running_server import serving, wait_until
from medimageparse_contract.models import MODEL_2D, MODEL_3D, STREAMS
from medimageparse_serving.launch.addresses import free_port, open_local
from medimageparse_serving.launch.service_metrics import FAMILIES
from tritonclient.utils import InferenceServerException

PROMETHEUS = ROOT / "deploy" / "prometheus"
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


@pytest.fixture(scope="module")
def query(service, grown, tmp_path_factory):
    """Asks a Prometheus that scrapes the service, by deploy/prometheus's configuration with other addresses."""
    if not shutil.which("prometheus"):
        pytest.skip("needs prometheus")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    shutil.copytree(PROMETHEUS, folder, dirs_exist_ok=True)
    text = (folder / "prometheus.yml").read_text().replace("scrape_interval: 15s", "scrape_interval: 1s")
    for usual, url in (("8003", service.probes), ("8002", service.metrics)):
        text = text.replace(f"localhost:{usual}", urlsplit(url).netloc)
    (folder / "prometheus.yml").write_text(text)
    words = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        yield lambda path, **parameters: asked(f"http://127.0.0.1:{port}/api/v1/{path}?{urlencode(parameters)}")
    finally:
        process.terminate()
        process.wait(60)


def asked(url):
    """What Prometheus answers; None while it starts."""
    try:
        with open_local(url, timeout=30) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


def test_every_query_of_the_dashboard_finds_something(query):
    """In a Prometheus that scrapes this service; there is no GPU here."""
    dashboard = json.loads((PROMETHEUS / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for expression in (text for text in queries if "nv_gpu_" not in text):
        wait_until(lambda expression=expression: (query("query", query=expression) or {}).get("result"))


def test_prometheus_has_the_alerts_and_none_rings(query):
    """All parts of the rules are known to a real server: none is unhealthy."""
    wait_until(lambda: query("rules") and all(r["health"] == "ok" for r in query("rules")["groups"][0]["rules"]))
    assert [alert for alert in query("alerts")["alerts"] if alert["state"] == "firing"] == []
