"""A gateway that runs for a test as its users start it: a process with a configuration, and its log."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE_S = 300  # for a machine that does much else; nothing is asserted about times


@dataclass
class Gateway:
    """url: without a slash at the end; log: its file; folder: the only one that it may write temporary files to."""

    url: str
    process: Any
    log: Path
    folder: Path

    def ask(self, path, body=None, method=None, **headers):
        """An answer, whatever its status. Headers are written with _ for -."""
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
            headers = {"content_type": "application/json", **headers}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, body, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def memory_bytes(self):
        """The most that it has had since it was started."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024


@dataclass
class Answer:
    status: int
    headers: Any = field(repr=False)
    body: bytes = field(repr=False)

    def json(self):
        return json.loads(self.body)


@contextmanager
def gateway_process(folder, grpc_url, keys=(), **settings):
    """Starts one before a tritonserver. keys: pairs of a caller's name and the SHA-256 of its key."""
    folder.mkdir(parents=True)
    temporary, config, log = folder / "tmp", folder / "gateway.toml", folder / "gateway.log"
    temporary.mkdir()
    lines = [f"{name} = {json.dumps(value)}" for name, value in (settings | {"triton": grpc_url}).items()]
    lines += [f'[[keys]]\nname = "{name}"\nsha256 = "{digest}"' for name, digest in keys]
    config.write_text("\n".join(lines))
    command = [sys.executable, "-m", "medimageparse_gateway", "--config", str(config), "--port", "0"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, "TMPDIR": str(temporary)}
        )
        try:
            ready = process.stdout.readline()
            assert ready.startswith("ready: "), log.read_text()
            yield Gateway(ready.removeprefix("ready: ").strip(), process, log, temporary)
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)
