"""Keeps a tritonserver answering right: what dies, stops or answers a canary wrong is started again.

tritonserver 2.51 never restarts a python step that was killed and goes on to say that it is ready. To load the models
again takes about as long as to start the whole server, and leaks shared memory; so the server is what is restarted.
"""

import contextlib
import ctypes
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import canary
from model_calls import reachable_models
from triton_installation import ServeError

if TYPE_CHECKING:
    from serve import TritonServer

TICK_S = 0.1
WARM_UP_ROUNDS, WARM_UP_S = 4, 5  # canaries before the first request; fewer where they are slow
CANARY_SHARE = 20  # a canary that takes 1 s is followed by 20 s without one: at most 5 % of the server is spent on them
MAX_STARTS = 5  # failed ones in a row
LONGEST_PAUSE_S, CALM_S = 30, 60
PR_SET_CHILD_SUBREAPER = 36
EXEC_COUNT = re.compile(r'nv_inference_exec_count\{model="(\w+)".*\} (\S+)')


def pause_s(n_recent: int) -> int:
    """How long to wait before a restart, if there were so many in the last minute: 0, 1, 2, 4, ... 30 seconds."""
    return min(2 ** (n_recent - 1), LONGEST_PAUSE_S) if n_recent else 0


def say(words: str) -> None:
    """A line of the log; a full disk does not stop the service."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"serve.py: {words}\n")
        sys.stderr.flush()


def adopt_orphans() -> None:
    """Processes whose parent dies become ours, so that we can collect them, also where PID 1 does not."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def collect_orphans(server_pid: int) -> None:
    """Takes the exit codes of all ended children but the server's, which its owner wants."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == server_pid:
            return
        os.waitpid(ended.si_pid, 0)


def is_running(pid: int) -> bool:
    """Whether a process exists, has not ended and was not stopped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZT"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:  # ended in the meantime
            continue
        if int(parent) == pid:
            found.append(int(stat.parent.name))
    return found


def own_models(repository: Path, models: Sequence[str]) -> dict[str, set[str]]:
    """Each model with those that it calls and none of the others does."""
    reached = {model: set(reachable_models(repository, [model])) for model in models}
    return {model: reached[model].difference(*(reached[m] for m in models if m != model)) for model in models}


class Supervisor:
    """A server that is watched: `with Supervisor(server, models) as supervisor: supervisor.watch()`.

    HTTP on the probe port: /startup (a canary was segmented since the start of this program), /ready (the last one was
    segmented right, and every process lives), /live (the supervisor itself does its work). 200 is yes, 503 no.
    """

    def __init__(
        self,
        server: "TritonServer",
        models: Sequence[str],
        probe_port: int = 0,
        interval_s: float = 5,
        patience_s: float = 60,
    ) -> None:
        """The canary is sent every interval_s; no answer in patience_s, while nothing else ends either, means hung."""
        self.server, self.models = server, models
        self.interval_s, self.patience_s = interval_s, patience_s
        self.own_models = own_models(server.repository, models)
        self.expected: dict[str, str] = {}
        self.canary_s = float("inf")
        self.has_started, self.problem = False, "starting"
        self.last_sign, self.longest_silence_s = time.monotonic(), 2 * server.ready_timeout_s + LONGEST_PAUSE_S
        self.restarts: deque[float] = deque(maxlen=10)
        self.pool = ThreadPoolExecutor(1)
        host = server.hosts["grpc"]
        try:
            self.probe = ThreadingHTTPServer((host, probe_port), probe_handler(self))
        except OSError as error:
            raise ServeError(f"port {probe_port} cannot be used for the probes: {error.strerror}") from None
        self.probe_url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{self.probe.server_port}"

    def __enter__(self) -> "Supervisor":
        threading.Thread(target=self.probe.serve_forever, daemon=True).start()
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Not ready from now on; the server finishes what it works on, then ends."""
        self.problem = "stopping"
        self.server.drain(self.models)
        self.server.stop()
        self.pool.shutdown(cancel_futures=True)
        self.probe.shutdown()
        self.probe.server_close()

    def watch(self) -> NoReturn:
        """Restarts the server whenever it must be, until it does not start any more: then ServeError."""
        adopt_orphans()
        while True:
            self.problem = self._wait_for_problem()
            say(f"{self.problem}; the server is restarted")
            began = time.monotonic()
            self._restart()
            say(f"the canary is segmented right again after {time.monotonic() - began:.1f} s")

    def states(self) -> dict[str, tuple[bool, str]]:
        """Path of a probe -> whether the answer is yes, and words."""
        silence = time.monotonic() - self.last_sign
        return {
            "/startup": (self.has_started, "started" if self.has_started else "starting"),
            "/ready": (not self.problem, self.problem or "ready"),
            "/live": (silence < self.longest_silence_s, f"last sign of life {silence:.0f} s ago"),
        }

    def _start(self) -> None:
        """A server whose canary was segmented, and the same as ever; ServeError if there is none."""
        self.last_sign = time.monotonic()
        self.server.start()
        assert self.server.process is not None
        self.steps = children(self.server.process.pid)
        try:
            self._warm_up()
        except ServeError:
            self.server.stop(at_once=True)
            raise
        self.has_started, self.problem = True, ""

    def _warm_up(self) -> None:
        began = time.monotonic()
        for _ in range(1 if self.has_started else WARM_UP_ROUNDS):
            began_round = time.monotonic()
            for model in self.models:
                try:
                    found = canary.segment(self.server.http_url, model, self.server.ready_timeout_s)
                except canary.CanaryError as error:
                    raise ServeError(f"{model} does not segment the canary: {error}") from None
                if self.expected.setdefault(model, found) != found:
                    raise ServeError(f"{model} does not segment the canary as it did before: its answers are not sure")
            self.canary_s = min(self.canary_s, time.monotonic() - began_round)
            if time.monotonic() - began > WARM_UP_S:
                break

    def _restart(self) -> None:
        now = time.monotonic()
        pause = pause_s(sum(now - earlier < CALM_S for earlier in self.restarts))
        problem = ""
        for attempt in range(MAX_STARTS):
            self.server.stop(at_once=True)
            time.sleep(max(pause, pause_s(attempt)))
            self.restarts.append(time.monotonic())
            try:
                self._start()
                return
            except ServeError as error:
                problem = str(error)
                say(f"start {attempt + 1} of {MAX_STARTS} failed: {problem}")
        raise ServeError(f"the server does not start any more: {problem}")

    def _wait_for_problem(self) -> str:
        check: Future[str] | None = None
        due = time.monotonic() + self.interval_s
        while True:
            self.last_sign = began_tick = time.monotonic()
            if problem := self._find_dead():
                return problem
            if check is None and began_tick >= due:
                check = self.pool.submit(self._check_canaries)
            if check is not None and check.done():
                if problem := check.result():
                    return problem
                check, due = None, began_tick + max(self.interval_s, CANARY_SHARE * self.canary_s)
            time.sleep(TICK_S)

    def _find_dead(self) -> str:
        """What to say of a process that ended; nothing if all run."""
        assert self.server.process is not None
        collect_orphans(self.server.process.pid)
        if (code := self.server.process.poll()) is not None:
            return f"tritonserver ended with code {code}"
        processes = (self.server.process.pid, *self.steps)
        return "" if all(map(is_running, processes)) else "a process of the server ended or was stopped"

    def _check_canaries(self) -> str:
        """What is wrong with a model's answers, twice in a row; nothing if they are right or the server is busy."""
        for model in self.models:
            if self._ask(model) and (problem := self._ask(model)):
                return f"{model}: {problem}"
        return ""

    def _ask(self, model: str) -> str:
        deadline, before = time.monotonic() + self.patience_s, self._count_computations(model)
        while True:
            patience = max(deadline - time.monotonic(), 0.1)
            try:
                found = canary.segment(self.server.http_url, model, patience)
            except canary.NoAnswerError:  # hung, or busy with other requests
                if time.monotonic() < deadline:
                    time.sleep(min(1, patience))
                elif any(n > before.get(m, 0) + 1 for m, n in self._count_computations(model).items()):
                    return ""  # one may be the canary's own, on its way to what hangs
                else:
                    return f"no answer to the canary in {self.patience_s:g} s, and no other request was finished"
            except canary.CanaryError as error:
                return f"no right answer to the canary: {error}"
            else:
                return "" if found == self.expected[model] else "the canary was segmented wrong"

    def _count_computations(self, model: str) -> dict[str, int]:
        """How often the model, and each that only it calls, has finished one."""
        try:
            with urllib.request.urlopen(self.server.metrics_url, timeout=5) as answer:
                counts = EXEC_COUNT.findall(answer.read().decode())
        except OSError:
            return {}
        return {name: int(float(count)) for name, count in counts if name in self.own_models[model]}


def probe_handler(supervisor: Supervisor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            yes, words = supervisor.states().get(self.path, (False, "ask for /startup, /ready or /live"))
            self.send_response(200 if yes else 503)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(f"{words}\n".encode())

        def log_message(self, *_: object) -> None:
            """Says nothing: a probe comes every few seconds."""

    return Handler
