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

from addresses import open_local
from serve import REPOSITORY
from supervise import children

PORTS = [f"--{name}-port=0" for name in ("http", "grpc", "metrics", "probe")]
COMMAND = [sys.executable, str(REPOSITORY / "serve.py"), "--runtime", "cpu", *PORTS]
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
            yield SimpleNamespace(process=process, grpc=grpc, metrics=metrics, probes=probes, log=log_file)
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
