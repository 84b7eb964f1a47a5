"""Keeps a tritonserver answering right: what dies, stops or answers a canary wrong is started again.

tritonserver 2.51 never restarts a python step that was killed and goes on to say that it is ready. To load the models
again takes about as long as to start the whole server, and leaks shared memory; so the server is what is restarted.
"""

import http.client
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NoReturn

from medimageparse_serving.launch import canary
from medimageparse_serving.launch.addresses import address_of, open_local
from medimageparse_serving.launch.gateway_process import GatewayProcess
from medimageparse_serving.launch.launch_errors import KilledError, ServeError
from medimageparse_serving.launch.model_calls import own_models
from medimageparse_serving.launch.probes import ProbeServer
from medimageparse_serving.launch.server_log import say
from medimageparse_serving.launch.server_processes import adopt_orphans, children, collect_orphans, is_running
from medimageparse_serving.launch.service_metrics import ServiceMetrics
from medimageparse_serving.launch.triton_server import TritonServer

TICK_S = 0.1
WARM_UP_ROUNDS, WARM_UP_S = 4, 5  # canaries before the first request; fewer where they are slow
CANARY_SHARE = 20  # a canary that takes 1 s is followed by 20 s without one: at most 5 % of the server is spent on them
ENDING_S = 2
MAX_STARTS = 5  # failed ones in a row
LONGEST_PAUSE_S, CALM_S = 30, 60
EXEC_COUNT = re.compile(r'nv_inference_exec_count\{model="(\w+)".*\} (\S+)')


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
    ) -> None:
        """The canary is sent every interval_s; no answer in patience_s, while nothing else ends either, means hung.

        The gateway, if there is one, listens once the server has warmed up, and is kept running beside it.
        """
        self.server, self.models, self.metrics, self.gateway = server, models, metrics, gateway
        self.interval_s, self.patience_s = interval_s, patience_s
        self.own_models = own_models(server.repository, models)
        self.expected: dict[str, str] = {}
        self.canary_s = float("inf")
        self.has_started, self.problem = False, "starting"
        self.last_sign, self.longest_silence_s = time.monotonic(), 2 * server.ready_timeout_s + LONGEST_PAUSE_S
        self.restarts: deque[float] = deque(maxlen=10)
        self.pool = ThreadPoolExecutor(1)
        self.probe = ProbeServer(server.hosts["grpc"], probe_port, self.states, self.tell_prometheus)
        self.probe_url = f"http://{address_of(server.hosts['grpc'], self.probe.server_port)}"

    def __enter__(self) -> "Supervisor":
        threading.Thread(target=self.probe.serve_forever, daemon=True).start()
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
            self.problem = self._wait_for_problem()
            say(f"{self.problem}; the server is restarted")
            began = time.monotonic()
            self._restart()
            say(f"the canary is segmented right again after {time.monotonic() - began:.1f} s")

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
        assert self.server.process is not None
        self.steps = children(self.server.process.pid)
        try:
            self._warm_up()
        except ServeError:
            self.server.stop(at_once=True)
            raise
        self.server.open()
        self.has_started, self.problem = True, ""

    def _warm_up(self) -> None:
        began = time.monotonic()
        for _ in range(1 if self.has_started else WARM_UP_ROUNDS):
            began_round = time.monotonic()
            for model in self.models:
                try:
                    found = canary.segment(
                        self.server.http_url, model, self.server.ready_timeout_s, self.server.inner_key
                    )
                except canary.CanaryError as error:
                    kind = KilledError if self._ends() else ServeError
                    raise kind(f"{model} does not segment the canary: {error}") from None
                if self.expected.setdefault(model, found) != found:
                    raise ServeError(f"{model} does not segment the canary as it did before: its answers are not sure")
                self.metrics.canary_is_right(model, time.monotonic() - began_round)
            self.canary_s = min(self.canary_s, time.monotonic() - began_round)
            if time.monotonic() - began > WARM_UP_S:
                break

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

    def _wait_for_problem(self) -> str:
        check: Future[str] | None = None
        due = time.monotonic() + self.interval_s
        while True:
            self.last_sign = began_tick = time.monotonic()
            if problem := self._find_dead():
                return problem
            if self.gateway:
                self.gateway.look_after()
            if check is None and began_tick >= due:
                check = self.pool.submit(self._check_canaries)
            if check is not None and check.done():
                if problem := check.result():
                    return problem
                check, due = None, began_tick + max(self.interval_s, CANARY_SHARE * self.canary_s)
            time.sleep(TICK_S)

    def _find_dead(self) -> str:
        """A sentence on a process that ended; nothing if all run."""
        assert self.server.process is not None
        collect_orphans(self.server.process.pid)
        if (code := self.server.process.poll()) is not None:
            return f"tritonserver ended with code {code}"
        processes = (self.server.process.pid, *self.steps)
        return "" if all(map(is_running, processes)) else "a process of the server ended or was stopped"

    def _ends(self) -> bool:
        """Whether a process ended, or does in a moment: a connection breaks before that can be seen."""
        deadline = time.monotonic() + ENDING_S
        while not (ended := bool(self._find_dead())) and time.monotonic() < deadline:
            time.sleep(TICK_S)
        return ended

    def _check_canaries(self) -> str:
        """What is wrong with a model's answers, twice in a row; nothing if they are right or the server is busy."""
        for model in self.models:
            if self._ask(model):
                self.metrics.canary_is_wrong(model)
                if problem := self._ask(model):
                    return f"{model}: {problem}"
        return ""

    def _ask(self, model: str) -> str:
        deadline, before = time.monotonic() + self.patience_s, self._count_computations(model)
        while True:
            patience = max(deadline - time.monotonic(), 0.1)
            try:
                found = canary.segment(self.server.http_url, model, patience, self.server.inner_key)
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
                if found != self.expected[model]:
                    return "the canary was segmented wrong"
                self.metrics.canary_is_right(model, self.patience_s - (deadline - time.monotonic()))
                return ""

    def _count_computations(self, model: str) -> dict[str, int]:
        """How often the model, and each that only it calls, has finished one."""
        try:
            with open_local(self.server.metrics_url, timeout=5) as answer:
                counts = EXEC_COUNT.findall(answer.read().decode())
        except (OSError, http.client.HTTPException):
            return {}
        return {name: int(float(count)) for name, count in counts if name in self.own_models[model]}
