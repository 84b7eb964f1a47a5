"""deploy/envoy and the balancer of deploy/kubernetes: one configuration, which the real Envoy takes."""

import subprocess

import pytest
import yaml
from helpers.certificates import make_certificates
from helpers.envoy import FOLDER, balancer, binary, read
from helpers.manifests import of_kind
from helpers.running_server import wait_until
from medimageparse_serving.launch.serve import parse_arguments

PLAIN = of_kind("overlays/autoscaled", "Deployment")["medimageparse-envoy"]
IN_CLUSTER = {o: next(iter(of_kind(f"overlays/{o}", "ConfigMap").values()))["data"] for o in ("autoscaled", "tls")}


def resources(text):
    return {found.get("name"): found for found in yaml.safe_load(text)["resources"]}


def addresses_of(resources):
    """Takes the servers' addresses out of the clusters."""
    [endpoints] = resources["servers"]["load_assignment"].pop("endpoints")
    return [entry["endpoint"] for entry in endpoints["lb_endpoints"]]


@pytest.mark.parametrize("overlay", IN_CLUSTER)
def test_envoy_takes_what_the_cluster_gives_it(tmp_path, overlay):
    """--mode validate does not read the other files, so here they are one."""
    parts = IN_CLUSTER[overlay]
    bootstrap = yaml.safe_load(parts["envoy.yaml"])
    del bootstrap["dynamic_resources"]
    listeners, clusters = (list(resources(parts[name]).values()) for name in ("listeners.yaml", "clusters.yaml"))
    for part in (*listeners, *clusters):
        del part["@type"]
    bootstrap["static_resources"] = {"listeners": listeners, "clusters": clusters}
    if overlay == "tls":
        for listener in listeners:
            for chain in listener["filter_chains"]:
                chain.pop("transport_socket", None)  # needs the certificate; test_several_servers.py has one
    file = tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(bootstrap))
    command = [binary(), "--mode", "validate", "-c", file, "--disable-hot-restart", "--log-level", "warning"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "Deprecated" not in found.stdout + found.stderr


def test_with_tls_the_callers_port_is_the_same_but_for_tls():
    plain, tls = (resources(IN_CLUSTER[overlay]["listeners.yaml"]) for overlay in ("autoscaled", "tls"))
    [chain] = tls["callers"]["filter_chains"]
    assert chain.pop("transport_socket")["name"] == "envoy.transport_sockets.tls"
    assert tls["callers"]["address"]["socket_address"].pop("port_value") == 8443
    assert plain["callers"]["address"]["socket_address"].pop("port_value") == 8001
    assert tls == plain


def test_machines_without_kubernetes_have_the_same_balancer():
    cluster, here = resources(IN_CLUSTER["tls"]["clusters.yaml"]), resources((FOLDER / "clusters.yaml").read_text())
    assert len(addresses_of(cluster)) == 1
    assert len(addresses_of(here)) == 2
    assert here == cluster
    for name in ("envoy.yaml", "listeners.yaml", "certificate.yaml"):
        assert (FOLDER / name).read_text() == IN_CLUSTER["tls"][name]


def test_servers_are_asked_at_their_ports_and_by_their_names():
    options = parse_arguments(["--runtime", "cpu"])
    [service] = of_kind("overlays/autoscaled", "Service").keys() - {"medimageparse"}
    places = [resources(IN_CLUSTER["tls"]["clusters.yaml"]), resources((FOLDER / "clusters.yaml").read_text())]
    for place in places:
        [check] = place["servers"]["health_checks"]
        assert check["http_health_check"]["path"] == "/ready"
        for endpoint in addresses_of(place):
            assert endpoint["address"]["socket_address"]["port_value"] == options["grpc_port"]
            assert endpoint["health_check_config"]["port_value"] == options["probe_port"]
    [inside] = addresses_of(resources(IN_CLUSTER["tls"]["clusters.yaml"]))
    assert inside["address"]["socket_address"]["address"] == service


def test_mounts_are_where_envoy_reads():
    mounts = container_of(of_kind("overlays/tls", "Deployment"))["volumeMounts"]
    paths = {mount["name"]: mount["mountPath"] for mount in mounts}
    secret = resources(IN_CLUSTER["tls"]["certificate.yaml"])["certificate"]["tls_certificate"]
    assert secret["watched_directory"]["path"] == paths["tls"]
    assert secret["certificate_chain"]["filename"] == f"{paths['tls']}/tls.crt"
    for source in read("envoy.yaml")["dynamic_resources"].values():
        assert source["path_config_source"]["watched_directory"]["path"] == paths["config"]


def container_of(deployments):
    [found] = deployments["medimageparse-envoy"]["spec"]["template"]["spec"]["containers"]
    return found


@pytest.mark.slow
def test_an_ending_balancer_asks_its_connections_to_end(tmp_path):
    """The command of preStop, without its pauses."""
    [*shell, words] = container_of({"medimageparse-envoy": PLAIN})["lifecycle"]["preStop"]["exec"]["command"]
    with balancer(tmp_path, [], make_certificates(tmp_path), "--drain-time-s", "1") as envoy:
        assert envoy.count("listener_manager.listener_stopped") == 0
        command = words.replace("sleep", ": ").replace("/9901", f"/{envoy.admin.rpartition(':')[2]}")
        subprocess.run([*shell, command], check=True, timeout=60)
        wait_until(lambda: envoy.count("listener_manager.listener_stopped") == 2)
