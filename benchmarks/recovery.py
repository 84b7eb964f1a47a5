"""How long a killed process keeps the service down, until the first right answer of the server started in its place.

    .venv/bin/python benchmarks/recovery.py

A fresh serve.py of the demo models for each kill, so that no restart waits for an earlier one. Two threads send volumes
and images, one after the other; meanwhile a python step, a network or tritonserver is killed (kill -9). Times are
seconds after the kill. A row for each victim in results/recovery.csv. The exit status is 0 only if no answer was wrong.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nibabel as nib
import numpy as np
from medimageparse_client import Client, MedImageParseError
from medimageparse_demo.images import make_image
from medimageparse_demo.phantoms import make_phantom
from medimageparse_demo.repository import demo_repository
from recording import RESULTS, append_row, conditions, median
from serve import REPOSITORY
from supervise import children

VICTIMS = {"step": "medimageparse_3d/", "network": "mask_decoder_3d/", "tritonserver": "tritonserver"}
PORTS = [f"--{name}-port=0" for name in ("http", "grpc", "metrics", "probe")]
POLL_S, LIMIT_S = 0.05, 120.0
TIMES = ("new_server_s", "ready_s", "volume_s", "image_s")


@contextmanager
def serving(repository: Path) -> Iterator[tuple[int, str, str]]:
    """Process id, gRPC and probe urls of a serve.py."""
    command = [sys.executable, str(REPOSITORY / "serve.py"), "--runtime=cpu", f"--repository={repository}", *PORTS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        urls = re.search(r"grpc (\S+), .*probes (\S+)", process.stdout.readline())
        if urls is None:
            raise RuntimeError("serve.py does not start: make serve-demo says why")
        try:
            yield process.pid, urls[1], urls[2]
        finally:
            process.terminate()
            process.communicate()


def tritonserver_of(pid: int) -> int | None:
    """The server that a serve.py has started, once it is one."""
    return next((child for child in children(pid) if "/tritonserver" in command_line(child)), None)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # ended in the meantime
        return ""


class Asking(threading.Thread):
    """Sends a request again and again; keeps when right answers were asked for and came, and counts wrong ones."""

    def __init__(self, url: str, ask: Callable[[Client], np.ndarray]) -> None:
        super().__init__(daemon=True)
        self.url, self.ask, self.right, self.n_wrong, self.stopped = url, ask, [], 0, threading.Event()
        with Client(url, timeout_s=LIMIT_S) as client:
            self.expected = ask(client)
        self.start()

    def run(self) -> None:
        while not self.stopped.wait(POLL_S):
            asked = time.monotonic()
            with suppress(MedImageParseError), Client(self.url, timeout_s=LIMIT_S) as client:
                if np.array_equal(self.ask(client), self.expected):
                    self.right.append((asked, time.monotonic()))
                else:
                    self.n_wrong += 1

    def first_right_after(self, moment: float) -> float | None:
        """When the first right answer came that was asked for after a moment."""
        return next((came for asked, came in list(self.right) if asked > moment), None)


def is_ready(probes: str) -> bool:
    try:
        with urllib.request.urlopen(f"{probes}/ready", timeout=5):
            return True
    except urllib.error.URLError:
        return False


def wait_for(condition: Callable[[], object]) -> float:
    """When the condition first held."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"the service did not come back within {LIMIT_S:g} s")
        time.sleep(POLL_S)
    return time.monotonic()


def kill_once(repository: Path, victim: str) -> tuple[dict[str, float], int]:
    """Seconds from a kill until each of TIMES, and the number of wrong answers."""
    phantom = make_phantom(0, "CT", (4, 96, 96))
    volume, picture = nib.Nifti1Image(phantom.intensities, phantom.affine), make_image(0).pixels
    with serving(repository) as (pid, url, probes):
        asking = {
            "volume_s": Asking(url, lambda client: client.segment(volume, ["liver", "spleen"]).label_map),
            "image_s": Asking(url, lambda client: client.segment_image(picture, ["liver", "heart"]).probabilities),
        }
        started = time.monotonic()
        for thread in asking.values():
            wait_for(lambda thread=thread: thread.first_right_after(started))
        server = tritonserver_of(pid)
        assert server is not None
        killed = next(p for p in (server, *children(server)) if victim in command_line(p))
        os.kill(killed, signal.SIGKILL)
        moment = time.monotonic()
        found = {"new_server_s": wait_for(lambda: tritonserver_of(pid) not in (None, server))}
        found["ready_s"] = wait_for(lambda: is_ready(probes))
        for name, thread in asking.items():
            wait_for(lambda thread=thread: thread.first_right_after(found["new_server_s"]))
            found[name] = thread.first_right_after(found["new_server_s"]) or 0.0
            thread.stopped.set()
        for thread in asking.values():
            thread.join()
    return {name: found[name] - moment for name in TIMES}, sum(thread.n_wrong for thread in asking.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="kills of each victim")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found_at, n_wrong = conditions(["onnxruntime", "numpy", "nvidia-pytriton"]), 0
    found_at |= {"runtime": "cpu", "networks": "DEMO and DEMO_2D"}
    with tempfile.TemporaryDirectory() as folder:
        repository = demo_repository(Path(folder) / "models")
        for name, victim in VICTIMS.items():
            rounds, wrong_before = [], n_wrong
            for _ in range(arguments.rounds):
                times, wrong = kill_once(repository, victim)
                rounds.append(times)
                n_wrong += wrong
                print(name, *(f"{time} {seconds:.2f}" for time, seconds in times.items()), flush=True)
            row = {"killed": name, "rounds": arguments.rounds, "wrong_answers": n_wrong - wrong_before}
            for time_name in TIMES:
                row[time_name] = median([times[time_name] for times in rounds])
            row["slowest_s"] = max(max(times.values()) for times in rounds)
            append_row(arguments.results / "recovery.csv", found_at | row)
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
