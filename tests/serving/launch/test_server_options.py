"""What the launcher decides about addresses, the operator's key and TLS before it starts anything."""

import argparse
import re
import subprocess
import sys

import pytest
from medimageparse_serving.launch import triton_server
from medimageparse_serving.launch.serve import ServeError, TritonServer, gateway_of, parse_arguments
from medimageparse_serving.launch.triton_installation import Installation


def server_of(folder, **options):
    (folder / "outer" / "1").mkdir(parents=True, exist_ok=True)
    (folder / "outer" / "config.pbtxt").write_text('name: "outer"')
    server = TritonServer(folder, models=("outer",), **options)
    server.shm_prefix = "ours-"
    return server, server.command(Installation("tritonserver"))


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("MEDIMAGEPARSE_ADMIN_KEY", raising=False)


def addresses(command):
    return {m[1]: m[2] for part in command if (m := re.fullmatch(r"--(http|grpc|metrics)-address=(\S+)", part))}


def test_only_grpc_is_opened_by_host(tmp_path):
    _, command = server_of(tmp_path)
    assert addresses(command) == dict.fromkeys(("http", "grpc", "metrics"), "127.0.0.1")
    _, command = server_of(tmp_path, host="0.0.0.0")
    assert addresses(command) == {"grpc": "0.0.0.0", "http": "127.0.0.1", "metrics": "127.0.0.1"}
    _, command = server_of(tmp_path, metrics_host="0.0.0.0")
    assert addresses(command) == {"grpc": "127.0.0.1", "http": "127.0.0.1", "metrics": "0.0.0.0"}


def test_the_wheels_server_is_asked_over_http_by_its_own_machine_only(tmp_path, monkeypatch):
    for host in ("0.0.0.0", "::"):
        server, command = server_of(tmp_path, http_host=host)
        assert addresses(command)["http"] == "127.0.0.1"
        assert server.http_url == f"127.0.0.1:{server.ports['http']}"
    assert addresses(server_of(tmp_path, http_host="::1")[1])["http"] == "ipv6:::1"
    monkeypatch.setattr(triton_server, "is_embedded", lambda: False)
    assert addresses(server_of(tmp_path, http_host="0.0.0.0")[1])["http"] == "0.0.0.0"


def restrictions(command):
    pattern = r"--(http-restricted-api|grpc-restricted-protocol)=([\w,-]+):admin-key=([\w-]+)"
    return {m[1]: (set(m[2].split(",")), m[3]) for part in command if (m := re.fullmatch(pattern, part))}


def test_nobody_knows_the_operators_key(tmp_path):
    (first, command), (second, _) = server_of(tmp_path), server_of(tmp_path)
    closed = {"model-repository", "shared-memory", "statistics", "trace", "logging"}
    assert restrictions(command) == dict.fromkeys(
        ("http-restricted-api", "grpc-restricted-protocol"), (closed, first.admin_key)
    )
    assert len(first.admin_key) >= 32
    assert first.admin_key != second.admin_key


def test_the_operator_may_choose_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDIMAGEPARSE_ADMIN_KEY", "chosen-by-operator")
    server, command = server_of(tmp_path)
    assert restrictions(command)["http-restricted-api"][1] == server.admin_key == "chosen-by-operator"


@pytest.mark.parametrize("key", ["short", "sixteen letters but blanks", "sixteen,letters,but,commas", "ä" * 16])
def test_keys_that_are_refused(tmp_path, monkeypatch, key):
    monkeypatch.setenv("MEDIMAGEPARSE_ADMIN_KEY", key)
    with pytest.raises(ServeError, match="at least 16 letters, digits, - or _") as refused:
        server_of(tmp_path)
    assert key not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [("--tls-certificate", "a.pem"), ("--tls-key", "a.key"), ("--tls-client-ca", "ca.pem")],
)
def test_tls_by_halves_is_refused(options, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["--runtime", "cpu", *options])
    assert ended.value.code == 2
    assert "TLS needs --tls-certificate and --tls-key" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--host", "--http-host"])
def test_what_is_open_or_stays_closed_is_said(tmp_path, option):
    command = [
        sys.executable,
        "-m",
        "medimageparse_serving.launch",
        "--runtime",
        "cpu",
        "--repository",
        tmp_path,
        option,
        "0.0.0.0",
    ]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert stopped.returncode == 1  # there is no model
    warning = {
        "--host": "gRPC is open to other machines and",
        "--http-host": "Triton's HTTP stays on 127.0.0.1",
    }
    assert warning[option] in stopped.stderr


def test_with_tls_the_gateway_is_told_the_servers_name_by_a_file(tmp_path):
    options = argparse.Namespace(
        gateway_port=0, tls_certificate=tmp_path / "a.pem", gateway_config=None, gateway_host="", access_log=None
    )
    with pytest.raises(ServeError, match="with TLS the gateway needs --gateway-config"):
        gateway_of(options, None)
    options.gateway_config = tmp_path / "gateway.toml"
    assert not any(part.startswith("--triton") for part in gateway_of(options, None).command)
