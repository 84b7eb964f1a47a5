"""The gateway as the launcher's child: it comes after the warm-up, is restarted, and ends with the launcher."""

import os
import signal
import subprocess

import pytest
from attacks.target import http
from helpers.places import ROOT
from helpers.running_server import PATIENCE_S, command_line, probe, regions, serving, triton_of, wait_until
from medimageparse_serving.launch import leftovers
from medimageparse_serving.launch.server_processes import children, is_running


def gateway_of(service):
    [gateway] = [pid for pid in children(service.process.pid) if "medimageparse_gateway" in command_line(pid)]
    return gateway


def is_ready(service):
    return (http(service.gateway, "GET", "/ready"), probe(service, "/ready")) == (200, 200)


@pytest.fixture(scope="module")
def service(tmp_path_factory, images_alone):
    with serving(tmp_path_factory.mktemp("beside") / "log", images_alone, "--gateway-port=0") as service:
        yield service


def test_the_first_line_names_it_and_it_is_ready_then(service):
    assert is_ready(service)


def is_refused(service):
    try:
        return http(service.gateway, "GET", "/ready") != 200
    except OSError:
        return True


def test_killed_it_comes_back_at_the_same_port_and_the_server_stays(service):
    triton = triton_of(service)[0]
    os.kill(gateway_of(service), signal.SIGKILL)
    wait_until(lambda: is_refused(service))
    wait_until(lambda: not is_refused(service) and is_ready(service))
    assert triton_of(service)[0] == triton
    assert "the gateway ended; it is started again" in service.log.read_text()


def test_it_outlives_the_server_and_says_that_it_is_not_ready(service):
    gateway, triton = gateway_of(service), triton_of(service)[0]
    os.kill(triton, signal.SIGKILL)
    wait_until(lambda: http(service.gateway, "GET", "/ready") == 503)
    wait_until(lambda: is_ready(service))
    assert gateway_of(service) == gateway


def test_it_ends_with_the_launcher(service):
    """The last of the tests of this service."""
    gateway = gateway_of(service)
    service.process.terminate()
    assert service.process.wait(PATIENCE_S) == 0
    wait_until(lambda: not is_running(gateway))


def test_a_killed_launcher_leaves_nothing_behind(tmp_path, images_alone):
    with serving(tmp_path / "log", images_alone, "--gateway-port=0") as service:
        triton, steps, prefix = triton_of(service)
        assert steps
        started = (gateway_of(service), triton, *steps)
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not any(map(is_running, started)))
    leftovers.sweep()  # as the next start does, which may be that of another test
    wait_until(lambda: regions(prefix) == [])


def test_make_starts_it_unless_told_otherwise():
    def commands(*variables):
        command = ["make", "-n", "serve-demo", *variables]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout

    assert "--gateway-port 8080" in commands()
    assert "--gateway-port 9 --gateway-host 0.0.0.0" in commands("GATEWAY_PORT=9", "GATEWAY_HOST=0.0.0.0")
    assert '--gateway-config "a b.toml"' in commands("GATEWAY_CONFIG=a b.toml")
    assert "--gateway" not in commands("GATEWAY=0")
