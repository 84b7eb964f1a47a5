"""The gateway as a process of the launcher, with a program in its place that does as the test wants."""

import sys

import pytest
from medimageparse_serving.launch import gateway_process
from medimageparse_serving.launch.gateway_process import GatewayProcess
from medimageparse_serving.launch.launch_errors import ServeError

LISTENS = "print('ready: http://127.0.0.1:1', flush=True); import time; time.sleep(1000)"


@pytest.fixture
def gateway(monkeypatch):
    monkeypatch.setattr(gateway_process, "PAUSE_S", 0)
    gateway = GatewayProcess("127.0.0.1:8001", 0)
    gateway.command = [sys.executable, "-c", LISTENS]
    yield gateway
    gateway.stop()


def test_it_is_told_what_was_asked_for(tmp_path):
    command = GatewayProcess("[::1]:8001", 8080, "0.0.0.0", tmp_path / "a.toml").command
    assert command[1:3] == ["-m", "medimageparse_gateway"]
    assert set(command[3:]) == {"--triton=[::1]:8001", "--port=8080", "--host=0.0.0.0", f"--config={tmp_path}/a.toml"}
    assert "--access-log=text" in GatewayProcess("", 0, access_log="text").command


def test_it_says_where_it_listens_and_is_ended(gateway):
    gateway.start()
    assert gateway.url == "http://127.0.0.1:1"
    assert gateway.is_running()
    process = gateway.process
    gateway.stop()
    assert process.returncode is not None
    assert not gateway.is_running()


def test_one_that_ended_is_started_again_and_one_that_runs_is_not(gateway, capsys):
    gateway.start()
    first = gateway.process
    gateway.look_after()
    assert gateway.process is first
    first.kill()
    first.wait()
    gateway.look_after()
    assert gateway.process is not first
    assert gateway.is_running()
    assert "the gateway ended; it is started again" in capsys.readouterr().err


def test_one_that_does_not_start_is_said(gateway):
    gateway.command = [sys.executable, "-c", "raise SystemExit(2)"]
    with pytest.raises(ServeError, match="the gateway does not start; it says why above"):
        gateway.start()
    assert not gateway.is_running()


def test_without_the_package_it_is_refused(monkeypatch):
    monkeypatch.setattr(gateway_process, "PACKAGE", "medimageparse_nothing")
    with pytest.raises(ServeError, match="the gateway is not installed: .*GATEWAY=0"):
        GatewayProcess("127.0.0.1:8001", 0)
