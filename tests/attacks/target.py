"""The service under attack: its processes, their memory, and whether it still answers right."""

import contextlib
import os
import re
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from medimageparse_client import Client
from medimageparse_demo.phantoms import make_phantom
from medimageparse_serving.launch.server_processes import children

PATIENCE_S = 300
KB = 1024


class Broken(AssertionError):
    """The service did not hold; the sentence says how."""


def demand(condition: Any, sentence: str) -> None:
    if not condition:
        raise Broken(sentence)


@dataclass
class Target:
    """grpc, gateway, probes: "host:port" on this machine; key: of the gateway. No gateway: empty."""

    grpc: str
    gateway: str = ""
    probes: str = ""
    key: str = ""
    size: int = 1  # how many times the small form
    processes: list[int] = field(default_factory=list)
    answers: tuple[Any, ...] = ()
    resident: int = 0

    def __post_init__(self) -> None:
        self.triton = self._find_triton()
        self.launcher = parent(self.triton)
        self.prefix = re.findall(r"shm-region-prefix-name=(medimageparse-\w+)-", command_line(self.triton))[0]
        self.processes = [self.launcher, *children(self.launcher), *children(self.triton)]
        self.answers = self._ask()
        self.resident = self._memory("VmRSS")

    def _find_triton(self) -> int:
        wanted = f"--grpc-port={self.grpc.rpartition(':')[2]}"
        found = [pid for pid in all_processes() if wanted in command_line(pid).split("\0")]
        demand(len(found) == 1, f"no tritonserver of the launcher listens at {self.grpc} on this machine")
        return found[0]

    def _ask(self) -> tuple[Any, ...]:
        phantom = make_phantom(4, "CT")
        with Client(self.grpc, timeout_s=PATIENCE_S) as client:
            volume = client.segment(phantom.intensities[::2, ::2, 20:24], ["liver", "spleen"], affine=phantom.affine)
            picture = np.clip(phantom.intensities[..., 20] / 2 + 128, 0, 255).astype(np.uint8)
            return volume.label_map, client.segment_image(picture, ["liver"]).probabilities

    def _memory(self, name: str) -> int:
        """Bytes, of all processes together."""
        return sum(memory_of(pid, name) for pid in self.processes)

    def begin(self) -> None:
        """Forgets how much memory there was."""
        for pid in self.processes:
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")
        self.resident = self._memory("VmRSS")

    def grown(self) -> int:
        """By how many bytes each process grew since `begin` at its worst moment, all together."""
        return self._memory("VmHWM") - self.resident

    def check(self) -> None:
        """The same processes live, and the next right request is answered right to the bit."""
        now = {self.launcher, *children(self.launcher), *children(self.triton)}
        gone = set(self.processes) - now
        demand(not gone, f"{len(gone)} of {len(self.processes)} processes ended")
        same = [np.array_equal(found, expected) for found, expected in zip(self._ask(), self.answers, strict=True)]
        demand(all(same), "the next right request was answered wrong")
        if self.probes:
            demand(http(self.probes, "GET", "/ready") == 200, "the probe does not say that it is ready")

    def post(self, path: str, body: bytes, **headers: str) -> int:
        """The gateway's status, 0 if it closed the connection. Headers are written with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return http(self.gateway, "POST", path, body, named | self.authorization())

    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def http(address: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> int:
    connection = HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (ConnectionError, HTTPException):
        return 0
    finally:
        connection.close()


def all_processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:  # ended in the meantime
        return ""


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])


def memory_of(pid: int, name: str) -> int:
    """VmRSS or VmHWM of a process in bytes; 0 for one that ended."""
    try:
        [line] = re.findall(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(errors="replace"))
    except (OSError, ValueError):
        return 0
    return int(line) * KB
