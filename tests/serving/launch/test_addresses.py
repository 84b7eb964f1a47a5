"""Which ports and addresses the launcher takes, and what it says of others."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from medimageparse_serving.launch import addresses, leftovers
from medimageparse_serving.launch.addresses import address_of, choose_ports, claim_ports, numeric
from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.serve import REPOSITORY, parse_arguments
from medimageparse_serving.launch.server_log import find_reason
from medimageparse_serving.launch.triton_flags import address_flags

HERE = "127.0.0.1"


@pytest.fixture
def taken():
    """Two ports that somebody listens on."""
    with socket.create_server((HERE, 0)) as first, socket.create_server((HERE, 0)) as second:
        yield first.getsockname()[1], second.getsockname()[1]


def test_every_taken_port_is_named_with_its_option(taken):
    with pytest.raises(ServeError) as refused:
        choose_ports({"http": (HERE, taken[0]), "grpc": (HERE, 0), "probe": (HERE, taken[1])})
    words = str(refused.value).split("; ")
    assert len(words) == 2
    for line, port, option in zip(
        words, taken, ("--http-port, or HTTP_PORT=", "--probe-port, or PROBE_PORT="), strict=True
    ):
        assert line.startswith(f"port {port} is taken")
        assert option in line


def test_a_port_that_is_taken_on_another_address_is_taken_everywhere(taken):
    with pytest.raises(ServeError, match=f"port {taken[0]} is taken"):
        choose_ports({"grpc": ("0.0.0.0", taken[0])})


def test_free_ports_differ_from_each_other():
    chosen = choose_ports({name: (HERE, 0) for name in map(str, range(50))})
    assert len(set(chosen.values())) == 50


def test_one_port_for_two_is_refused():
    port = addresses.free_port()
    with pytest.raises(ServeError, match=f"^port {port} is asked for twice: .*--grpc-port"):
        choose_ports({"http": (HERE, port), "grpc": (HERE, port)})


@pytest.mark.parametrize("names", [("http",), ("metrics",), ("gateway",), ("grpc", "probe")])
def test_an_address_that_is_not_ours_is_refused_once(names):
    option = f"--{names[0]}-host" if names != ("grpc", "probe") else "--host"
    words = rf"^203\.0\.113\.7 is no address of this machine: choose another {option}$"
    with pytest.raises(ServeError, match=words):
        choose_ports(dict.fromkeys(names, ("203.0.113.7", 0)))


@pytest.mark.parametrize("host", ["nowhere.invalid", "", "a" * 70, "127.0.0.1.5"])
def test_a_name_that_nobody_knows_is_refused(host):
    with pytest.raises(ServeError, match="are addresses of this machine"):
        numeric(host)


def test_names_become_numbers_and_ipv4_comes_first(monkeypatch):
    assert numeric("::1") == numeric("[::1]") == "::1"
    assert numeric("0.0.0.0") == "0.0.0.0"
    both = [(socket.AF_INET6, 1, 6, "", ("::1", 0, 0, 0)), (socket.AF_INET, 1, 6, "", (HERE, 0))]
    for found, expected in ((both, HERE), (both[:1], "::1")):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, found=found, **__: found)
        assert numeric("localhost") == expected


def test_every_server_inside_tritonserver_gets_the_address_as_it_wants_it():
    names = ("http", "grpc", "metrics")
    flags = address_flags(dict.fromkeys(names, "::1"), dict.fromkeys(names, 1))
    assert [flag for flag in flags if "address" in flag] == [
        "--http-address=ipv6:::1",
        "--grpc-address=[::1]",
        "--metrics-address=ipv6:::1",
    ]
    assert address_of("::", 1) == "[::1]:1"
    assert address_of("0.0.0.0", 1) == "127.0.0.1:1"


def test_a_claimed_port_is_refused_until_it_is_given_back():
    with claim_ports([(HERE, 1)]), claim_ports([(HERE, 2), ("::1", 1)]):
        with pytest.raises(ServeError, match="port 1 is taken by another start"):
            claim_ports([(HERE, 3), (HERE, 1)])
        with claim_ports([(HERE, 3)]):  # those before the refused one are free again
            pass
    with claim_ports([(HERE, 1)]):
        pass


def test_a_port_that_went_while_the_server_loaded_is_named():
    for line in (
        "E1125 14:42:36 20553 main.cc:245] \"failed to start GRPC service: Unavailable - Socket '127.0.0.1:18501' "
        'already in use "',
        "E1125 14:42:36 20553 main.cc:260] \"failed to start HTTP service: Unavailable - Socket 'ipv6:::1:18501' "
        'already in use "',
    ):
        assert find_reason([line]) == "port 18501 was taken by another program at the same moment"


@pytest.mark.parametrize("number", ["65536", "-1", "http", "8000.0", "²"])
def test_what_is_no_port_is_refused(number, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["--runtime", "cpu", f"--http-port={number}"])
    assert ended.value.code == 2
    assert "a port is a number from 0 (any free one) to 65535" in capsys.readouterr().err


def test_the_repositorys_program_refuses_without_a_traceback():
    command = [sys.executable, REPOSITORY / "serve.py", "--runtime", "cpu", "--http-port=-1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "a port is a number from 0" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "name", ["a b", "b\xfcro", "a;b", "a:b", "$HOME", "`id`", "a'b", os.fsdecode(b"\xff"), "a&b", "a\nb"]
)
def test_temporary_files_lie_where_the_path_is_plain(tmp_path, monkeypatch, name):
    for folder, expected in ((tmp_path / name, Path("/tmp")), (tmp_path / "plain-1.0_x", tmp_path / "plain-1.0_x")):
        folder.mkdir()
        monkeypatch.setattr(leftovers.tempfile, "gettempdir", lambda folder=folder: str(folder))
        assert leftovers.temporary_folder() == expected
        with leftovers.Scratch() as scratch:
            assert scratch.folder.parent == expected
            link = leftovers.plain_link(scratch.folder, "link", tmp_path)
            assert re.fullmatch(r"[\w./-]+", str(link), re.ASCII)
            assert link.samefile(tmp_path)
        assert not scratch.folder.exists()
        assert tmp_path.exists()
