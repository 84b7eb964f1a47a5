"""deploy/systemd: a server for each GPU of a machine, on ports of its own."""

import configparser
import re
import shlex

from helpers.places import ROOT
from medimageparse_contract.version import VERSION
from medimageparse_serving.launch import serve, triton_flags

UNIT = configparser.ConfigParser(interpolation=None, comment_prefixes=("#",))
UNIT.optionxform = str
UNIT.read_string((ROOT / "deploy/systemd/medimageparse@.service").read_text().replace("\\\n", " "))
SERVICE = UNIT["Service"]
GPUS = range(8)


def command(gpu):
    """docker's words, and those of the launcher."""
    words = shlex.split(SERVICE["ExecStart"].replace("%i", str(gpu)))
    image = words.index("${IMAGE}")
    return words[:image], words[image + 1 :]


def options(gpu):
    docker, (dash_m, module, *flags) = command(gpu)
    assert docker[-2:] == ["--entrypoint", "python3"]
    assert (dash_m, module) == ("-m", "medimageparse_serving.launch")
    return serve.parse_arguments(flags)


def ports(gpu):
    return [options(gpu)[f"{name}_port"] for name in ("http", "grpc", "metrics", "probe")]


def test_the_image_is_of_this_version_and_is_named_once():
    assert SERVICE["Environment"] == f"IMAGE=medimageparse-triton:{VERSION}"
    assert "medimageparse-triton" not in SERVICE["ExecStart"]


def test_gpu_0_has_the_usual_ports_and_no_two_servers_share_one():
    usual = serve.parse_arguments(["--runtime", "cpu"])
    assert ports(0) == [usual[f"{name}_port"] for name in ("http", "grpc", "metrics", "probe")]
    taken = [port for gpu in GPUS for port in ports(gpu)]
    assert len(set(taken)) == len(taken) == 4 * len(GPUS)
    assert not {8080, 8443, 8004} & set(taken)  # the gateway's, nginx's and Envoy's, Envoy's probes


def test_each_sees_its_own_gpu_and_is_heard_on_this_machine_only():
    for gpu in GPUS:
        docker, _ = command(gpu)
        assert docker[docker.index("--gpus") + 1] == f"device={gpu}"
        assert {options(gpu)[f"{name}host"] for name in ("", "http_", "metrics_")} == {"127.0.0.1"}


def test_a_server_has_time_to_end():
    stop = int(re.search(r"--time (\d+)", SERVICE["ExecStop"])[1])
    assert stop > options(0)["drain"] + triton_flags.EXIT_TIMEOUT_S + 15
    assert int(SERVICE["TimeoutStopSec"]) > stop
    assert shlex.split(SERVICE["ExecStop"])[-1] == "medimageparse-%i" in SERVICE["ExecStart"]


def test_the_page_gives_the_ports_of_the_second_gpu():
    page = (ROOT / "docs" / "operate.md").read_text()
    _, grpc, _, probe = ports(1)
    assert f"port_value: {grpc}" in page
    assert f"port_value: {probe}" in page
