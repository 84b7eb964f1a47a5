"""Keeps a tritonserver answering right: what dies, stops or answers a canary wrong is started again.

A Python step that died is loaded again while the other models answer. Where that does not help, and for all else, the
server is restarted.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NoReturn

from medimageparse_serving.launch import canary
from medimageparse_serving.launch.addresses import address_of
from medimageparse_serving.launch.canaries import Canaries
from medimageparse_serving.launch.gateway_process import GatewayProcess
from medimageparse_serving.launch.launch_errors import KilledError, ServeError
from medimageparse_serving.launch.probes import ProbeServer
from medimageparse_serving.launch.server_log import say
from medimageparse_serving.launch.server_processes import TICK_S, adopt_orphans, while_running
from medimageparse_serving.launch.service_metrics import ServiceMetrics
from medimageparse_serving.launch.steps import Fault, Steps
from medimageparse_serving.launch.triton_server import TritonServer

WARM_UP_ROUNDS, WARM_UP_S = 4, 5  # canaries before the first request; fewer where they are slow
CANARY_SHARE = 20  # a canary that takes 1 s is followed by 20 s without one: at most 5 % of the server is spent on them
ENDING_S = 2
MAX_STARTS = 5  # failed ones in a row
LONGEST_PAUSE_S, CALM_S = 30, 60


def pause_s(n_recent: int) -> int:
    """How long to wait before a restart, if there were so many in the last minute: 0, 1, 2, 4, ... 30 seconds."""
    return min(2 ** (n_recent - 1), LONGEST_PAUSE_S) if n_recent else 0


class Supervisor:
    """A server that is watched: `with Supervisor(server, models) as supervisor: supervisor.watch()`.

    HTTP on the probe port: /startup (a canary was segmented since the start of this program), /ready (the last one was
    segmented right, and every process lives), /live (the supervisor itself does its work). 200 is yes, 503 no.
    """

    def __init__(
        self,
        server: TritonServer,
        models: Sequence[str],
        metrics: ServiceMetrics,
        probe_port: int = 0,
        interval_s: float = 5,
        patience_s: float = 60,
        gateway: GatewayProcess | None = None,
        step_memory_bytes: float = float("inf"),
    ) -> None:
        """The canary is sent every interval_s; no answer in patience_s, while nothing else ends either, means hung.

        The gateway, if there is one, listens once the server has warmed up, and is kept running beside it. A step that
        has more memory of its own than step_memory_bytes is loaded again.
        """
        self.server, self.models, self.metrics, self.gateway = server, models, metrics, gateway
        self.interval_s = interval_s
        self.steps = Steps(server, step_memory_bytes)
        self.canaries = Canaries(server, models, metrics, patience_s)
        self.canary_s = float("inf")
        self.has_started, self.problem, self.ill_since = False, "starting", 0.0
        self.last_sign, self.longest_silence_s = time.monotonic(), 2 * server.ready_timeout_s + LONGEST_PAUSE_S
        self.restarts: deque[float] = deque(maxlen=10)
        self.pool = ThreadPoolExecutor(1)
        self.probe = ProbeServer(server.hosts["grpc"], probe_port, self.states, self.tell_prometheus)
        self.probe_url = f"http://{address_of(server.hosts['grpc'], self.probe.server_port)}"

    def __enter__(self) -> "Supervisor":
        threading.Thread(target=self.probe.serve_forever, args=(TICK_S,), daemon=True).start()
        try:
            self._start()
            if self.gateway:
                self.gateway.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Not ready from now on; the server finishes what it works on, then ends."""
        self.problem = "stopping"
        if self.gateway:
            self.gateway.stop()
        self.server.drain(self.models)
        self.server.stop()
        self.pool.shutdown(cancel_futures=True)
        self.probe.shutdown()
        self.probe.server_close()

    def watch(self) -> NoReturn:
        """Restarts the server whenever it must be, until it does not start any more: then ServeError."""
        adopt_orphans()
        while True:
            fault = self._wait_for_fault()
            self.problem, self.ill_since = fault.sentence, self.ill_since or time.monotonic()
            if not self._heal(fault):
                self._restart()

    def states(self) -> dict[str, tuple[bool, str]]:
        """Path of a probe -> whether the answer is yes, and words."""
        silence = time.monotonic() - self.last_sign
        problem = self.problem or ("the gateway ended" if self.gateway and not self.gateway.is_running() else "")
        return {
            "/startup": (self.has_started, "started" if self.has_started else "starting"),
            "/ready": (not problem, problem or "ready"),
            "/live": (silence < self.longest_silence_s, f"last sign of life {silence:.0f} s ago"),
        }

    def tell_prometheus(self) -> str:
        return self.metrics.text(is_ready=self.states()["/ready"][0])

    def _start(self) -> None:
        """A server whose canary was segmented, and the same as ever; ServeError if there is none."""
        self.last_sign = time.monotonic()
        self.server.start(is_open=False)
        self.steps.look()
        try:
            self._warm_up()
        except ServeError:
            self.server.stop(at_once=True)
            raise
        self.server.open()
        self.has_started = True
        self._is_well()

    def _is_well(self) -> None:
        """All canaries were segmented right."""
        if self.ill_since:
            say(f"the canary is segmented right again after {time.monotonic() - self.ill_since:.1f} s")
        self.problem, self.ill_since = "", 0.0

    def _warm_up(self) -> None:
        began = time.monotonic()
        for _ in range(1 if self.has_started else WARM_UP_ROUNDS):
            try:
                assert self.server.process is not None
                self.canary_s = min(self.canary_s, while_running(self.server.process.pid, self.canaries.warm_up))
            except canary.CanaryError as error:
                kind = KilledError if self._find_end() else ServeError
                raise kind(str(error)) from None
            if time.monotonic() - began > WARM_UP_S:
                break

    def _heal(self, fault: Fault) -> bool:
        """Whether steps were loaded anew, so that the canary is to be asked; else the server is to be restarted."""
        problem = fault.sentence
        if fault.models:
            say(f"{problem}; {', '.join(fault.models)} is loaded again")
            try:
                self.steps.load_again(fault.models)
                self.metrics.count_loaded_again(len(fault.models))
                return True
            except ServeError as error:
                problem = str(error)
        say(f"{problem}; the server is restarted")
        return False

    def _restart(self) -> None:
        """A start that a caller may have ended is tried again for as long as it takes; of others MAX_STARTS."""
        failed = 0
        while True:
            now = time.monotonic()
            pause = pause_s(sum(now - earlier < CALM_S for earlier in self.restarts))
            try:
                self.server.stop(at_once=True)
                time.sleep(pause)
                self.restarts.append(time.monotonic())
                self.metrics.count_restart()
                self._start()
                return
            except KilledError as error:
                say(f"the server ended while it warmed up: {error}; it is started again")
            except (ServeError, OSError) as error:
                failed += 1
                problem = str(error) if isinstance(error, ServeError) else str(error.strerror)
                say(f"start {failed} of {MAX_STARTS} failed: {problem}")
                if failed == MAX_STARTS:
                    raise ServeError(f"the server does not start any more: {problem}") from None

    def _wait_for_fault(self) -> Fault:
        """Sends canaries, at once after a fault, and looks after the processes meanwhile."""
        check: Future[str] | None = None
        due = time.monotonic() + (0 if self.problem else self.interval_s)
        while True:
            self.last_sign = began_tick = time.monotonic()
            if fault := self.steps.find_fault():
                return fault
            if self.gateway:
                self.gateway.look_after()
            if check is None and began_tick >= due:
                check = self.pool.submit(self.canaries.find_problem)
            if check is not None and check.done():
                if problem := check.result():
                    return self._find_end() or Fault(problem)
                self._is_well()
                check, due = None, began_tick + max(self.interval_s, CANARY_SHARE * self.canary_s)
            time.sleep(TICK_S)

    def _find_end(self) -> Fault | None:
        """A process that ended, or does in a moment: a connection breaks before that can be seen."""
        deadline = time.monotonic() + ENDING_S
        while not (fault := self.steps.find_fault()) and time.monotonic() < deadline:
            time.sleep(TICK_S)
        return fault
