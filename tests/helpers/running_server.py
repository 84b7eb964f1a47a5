"""A serve.py that runs for a test: how it is started, asked and looked into."""

import os
import re
import subprocess
import sys
import time
import urllib.error
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
from medimageparse_serving.launch import leftovers, server_processes
from medimageparse_serving.launch.addresses import open_local
from medimageparse_serving.launch.serve import TritonServer

PORTS = [f"--{name}-port=0" for name in ("http", "grpc", "metrics", "probe")]
COMMAND = [sys.executable, "-m", "medimageparse_serving.launch", "--runtime", "cpu", *PORTS]
PATIENCE_S = 180  # for a machine that does much else; nothing is asserted about times


@contextmanager
def triton_server(*arguments, **options):
    """A TritonServer that is ended at once: to unload its models costs seconds, and few tests are about its end."""
    with TritonServer(*arguments, **options) as server:
        try:
            yield server
        finally:
            server.stop(at_once=True)


@contextmanager
def serving(log_file, repository=None, *flags, before=(), command=None, **options):
    """A running serve.py, started by the command `before` it: its process, urls and log. It is ended at once."""
    command = command or [*before, *COMMAND, "--repository", repository, *flags]
    with log_file.open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, **options)
        try:
            ready = process.stdout.readline()
            assert ready.startswith("ready: "), log_file.read_text()
            http, grpc, metrics, probes = re.search(
                r" http ([^\s,]+), grpc (\S+), metrics (\S+), probes (\S+)", ready
            ).groups()
            gateway = "".join(re.findall(r"gateway http://([^\s,]+)", ready))
            yield SimpleNamespace(
                process=process, http=http, grpc=grpc, gateway=gateway, metrics=metrics, probes=probes, log=log_file
            )
        finally:
            end_at_once(process)


def end_at_once(process):
    """Kills a serve.py and all that it started, and removes what they leave as the next start would."""
    family = []
    if process.poll() is None:
        root = psutil.Process(process.pid)
        family = [root, *root.children(recursive=True)]  # the supervisor first, which starts again what ends
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.communicate(timeout=PATIENCE_S)
    assert not psutil.wait_procs(family, PATIENCE_S)[1]
    leftovers.sweep()


def triton_of(service):
    """The tritonserver of a serve.py, its python steps that run, and the names of its shared memory.

    A step that died with a request stays a zombie as long as tritonserver lives, which waits for it in vain.
    """
    [triton] = [pid for pid in server_processes.children(service.process.pid) if "tritonserver" in command_line(pid)]
    steps = {pid: line for pid in server_processes.children(triton) if (line := command_line(pid))}
    [prefix] = re.findall(r"shm-region-prefix-name=([\w-]+)", command_line(triton))
    return triton, steps, prefix


def command_line(pid):
    """Its words in one text; "" of a process that ended in the meantime."""
    return " ".join(server_processes.command_line(pid))


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
        words = server_processes.command_line(int(folder.name))
        if any(word.startswith(server.shm_prefix) for word in words) and any(f"/{step}/" in word for word in words):
            found.append(int(folder.name))
    assert found
    return found
