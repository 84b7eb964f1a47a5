"""A serve.py that runs for a test: how it is started, asked and looked into."""

import os
import re
import subprocess
import sys
import time
import urllib.error
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from medimageparse_serving.launch.addresses import open_local
from medimageparse_serving.launch.supervise import children

PORTS = [f"--{name}-port=0" for name in ("http", "grpc", "metrics", "probe")]
COMMAND = [sys.executable, "-m", "medimageparse_serving.launch", "--runtime", "cpu", *PORTS]
PATIENCE_S = 180  # for a machine that does much else; nothing is asserted about times


@contextmanager
def serving(log_file, repository=None, *flags, before=(), command=None, **options):
    """A running serve.py, started by the command `before` it: its process and urls, and its log."""
    command = command or [*before, *COMMAND, "--repository", repository, *flags]
    with log_file.open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, **options)
        try:
            ready = process.stdout.readline()
            assert ready.startswith("ready: "), log_file.read_text()
            grpc, metrics, probes = re.search(r"grpc (\S+), metrics (\S+), probes (\S+)", ready).groups()
            gateway = "".join(re.findall(r"gateway http://([^\s,]+)", ready))
            yield SimpleNamespace(
                process=process, grpc=grpc, gateway=gateway, metrics=metrics, probes=probes, log=log_file
            )
        finally:
            process.terminate()
            process.communicate(timeout=60)


def triton_of(service):
    """The tritonserver of a serve.py, its python steps by their command lines, and the names of its shared memory."""
    [triton] = [pid for pid in children(service.process.pid) if "tritonserver" in command_line(pid)]
    steps = {pid: command_line(pid) for pid in children(triton)}
    [prefix] = re.findall(r"shm-region-prefix-name=([\w-]+)", command_line(triton))
    return triton, steps, prefix


def command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_text()


def regions(prefix):
    return [name for name in os.listdir("/dev/shm") if name.startswith(prefix)]


def probe(service, path):
    try:
        with open_local(service.probes + path, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def wait_until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


WAITING = """
import time
from pathlib import Path

from medimageparse_serving.triton.onnxruntime_model import TritonPythonModel as Network


class TritonPythonModel(Network):
    def execute(self, requests):
        while Path({file!r}).exists():
            time.sleep(0.01)
        return super().execute(requests)
"""


def let_wait(repository, network, file):
    """Has a network of a repository's copy compute nothing as long as there is a file."""
    runner = repository / network / "1" / "onnxruntime_model.py"
    runner.write_text(WAITING.format(file=str(file)))


def step_processes(server, step):
    """The python processes of a step of a TritonServer."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # ended in the meantime
            continue
        if any(word.startswith(server.shm_prefix) for word in words) and any(f"/{step}/" in word for word in words):
            found.append(int(folder.name))
    assert found
    return found
