"""Where serve.py starts: in any folder, behind a proxy, beside another one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.running_server import COMMAND, PATIENCE_S, probe, serving
from medimageparse_client import Client
from medimageparse_contract.models import MODEL_2D
from medimageparse_serving.launch.addresses import choose_ports

PORTS = ("http", "grpc", "metrics", "probe")
NOWHERE = "http://127.0.0.1:9"
HOSTILE = "my büro $(touch told);'x' \"q\" & `touch told` $HOME #"


@pytest.mark.parametrize(
    ("name", "locale"),
    [
        pytest.param(f"{HOSTILE}/{'x' * 200}/{'ü' * 100}/{'y' * 200}", "C.UTF-8", id="what a shell reads, long"),
        pytest.param(HOSTILE, "C", id="what a shell reads, without a locale"),
        pytest.param(os.fsdecode(b"caf\xe9 \xff"), "C", id="not UTF-8"),
    ],
)
def test_a_checkout_in_any_folder_serves(tmp_path, images_alone, name, locale):
    """The repository, the environment with the server's wheel, the working directory and TMPDIR are all in it."""
    checkout = tmp_path / name
    (checkout / "tmp").mkdir(parents=True)
    (checkout / "model_repository").symlink_to(images_alone)
    environment(tmp_path / "environment").rename(checkout / ".venv")  # one is not made where the name is not UTF-8
    surroundings = os.environ | {"TMPDIR": str(checkout / "tmp"), "LC_ALL": locale}
    any_ports = options(dict.fromkeys(PORTS, 0))
    command = [".venv/bin/python", "-m", "medimageparse_serving.launch", "--runtime", "cpu"]  # finds model_repository
    with serving(tmp_path / "log", command=command + any_ports, cwd=checkout, env=surroundings) as service:
        assert probe(service, "/ready") == 200  # the canary was segmented
    assert Path(name).parts[0] not in (tmp_path / "log").read_text(errors="surrogateescape")
    assert not list(tmp_path.rglob("told"))


def environment(folder):
    """A virtual environment there with the packages of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    packages.rmdir()
    packages.symlink_to(next(path for path in map(Path, sys.path) if (path / "pytriton").is_dir()))
    return folder


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_it_goes_past_proxies_to_its_own_machine(tmp_path, images_alone, monkeypatch, host):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
    with serving(tmp_path / "log", images_alone, f"--host={host}", f"--http-host={host}") as service:
        assert probe(service, "/ready") == 200
        with Client(service.grpc, timeout_s=PATIENCE_S) as client:
            assert client.health(canary=True).is_ready


@pytest.fixture
def ports():
    return choose_ports({name: ("127.0.0.1", 0) for name in PORTS})


def options(ports):
    return [f"--{name}-port={port}" for name, port in ports.items()]


def test_a_second_start_names_all_ports_and_leaves_the_first_alone(tmp_path, ports):
    (tmp_path / "tmp").mkdir()
    surroundings = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    command = [
        sys.executable,
        "-m",
        "medimageparse_demo.serve",
        "--runtime",
        "cpu",
        "--models",
        MODEL_2D,
        *options(ports),
    ]
    with serving(tmp_path / "log", command=command, env=surroundings) as service:
        before = sorted((tmp_path / "tmp").rglob("*"))
        second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=surroundings)
        assert second.returncode == 1
        assert second.stdout == ""
        sentence = "port {} is taken: stop what listens there, or choose another (--{}-port, or {}_PORT= of make)"
        expected = "; ".join(sentence.format(port, name, name.upper()) for name, port in ports.items())
        assert second.stderr == f"serve.py: {expected}\n"
        assert sorted((tmp_path / "tmp").rglob("*")) == before
        assert probe(service, "/ready") == 200
        with Client(service.grpc, timeout_s=PATIENCE_S) as client:
            assert client.health(canary=True).is_ready
        service.process.terminate()
        assert service.process.wait(PATIENCE_S) == 0
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("shared", [PORTS, ("http",), ("grpc",)], ids=", ".join)
def test_of_two_starts_at_one_moment_one_serves(images_alone, ports, shared):
    """Whichever port they both want: the other says that it is taken."""
    others = ports | {name: 0 for name in PORTS if name not in shared}
    processes = [
        subprocess.Popen(
            [*COMMAND, f"--repository={images_alone}", *options(wanted)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for wanted in (ports, others)
    ]
    try:
        first_lines = [process.stdout.readline() for process in processes]
        assert sorted(line[:6] for line in first_lines) == ["", "ready:"]
        [loser] = [process for process, line in zip(processes, first_lines, strict=True) if not line]
        _, words = loser.communicate(timeout=PATIENCE_S)
        assert loser.returncode == 1
        assert re.search(r"port (\d+) (is taken|cannot be used|was taken)", words)
        assert "Traceback" not in words
        [winner] = [process for process in processes if process is not loser]
        assert winner.poll() is None
    finally:
        for process in processes:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize("closed", ["<&-", "<&- 2>&-"])
def test_it_starts_without_standard_files_in_an_empty_environment_with_a_narrow_umask(tmp_path, images_alone, closed):
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    surroundings = {"PATH": "/usr/bin:/bin", "TMPDIR": "/nonexistent"}
    with serving(tmp_path / "log", images_alone, before=shell, env=surroundings, umask=0o077) as service:
        assert probe(service, "/ready") == 200


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--host=nowhere.invalid", "--host and the like are addresses of this machine; 'nowhere.invalid' is none"),
        ("--metrics-host=203.0.113.7", "203.0.113.7 is no address of this machine: choose another --metrics-host"),
    ],
)
def test_an_address_of_another_machine_is_refused(images_alone, option, words):
    ended = subprocess.run(
        [*COMMAND, "--repository", images_alone, option], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert ended.returncode == 1
    assert ended.stderr == f"serve.py: {words}\n"
