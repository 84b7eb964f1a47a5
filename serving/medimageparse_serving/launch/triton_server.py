"""A tritonserver on this model repository: how it is started, watched until it is ready, drained and stopped."""

import contextlib
import errno
import http.client
import ipaddress
import os
import resource
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from medimageparse_serving.launch import environments, leftovers
from medimageparse_serving.launch.addresses import address_of, choose_ports, claim_ports, numeric, open_local
from medimageparse_serving.launch.built_files import check_built_files, choose_runtime, find_built_models
from medimageparse_serving.launch.child import as_child
from medimageparse_serving.launch.launch_errors import ServeError, StarvedError
from medimageparse_serving.launch.manifests import compute_capabilities
from medimageparse_serving.launch.model_calls import reachable_models, with_streams
from medimageparse_serving.launch.model_control import ModelControl
from medimageparse_serving.launch.server_log import LOCK_GIVEN_UP, find_reason, is_news, tells_why
from medimageparse_serving.launch.tls import Tls
from medimageparse_serving.launch.tracing import checked_flags, environment
from medimageparse_serving.launch.triton_flags import (
    ADMIN_HEADER,
    EXIT_TIMEOUT_S,
    HUGE_PAGES,
    KEEPALIVE_FLAGS,
    access_flags,
    address_flags,
    find_admin_key,
    memory_flags,
)
from medimageparse_serving.launch.triton_installation import CPU_RUNTIMES, Installation, find_installation, is_embedded
from medimageparse_serving.step_environment import GATE, INNER_KEY, RUNTIME, STEP_PATIENCE

REPOSITORY = Path("model_repository")  # in the folder that a server is started from
# A large JSON body is parsed recursively: the default stack of 8 MiB carries about 4 MB of it, then the server dies.
STACK_BYTES = 1_000_000 * 1024  # not "unlimited", which glibc takes as 2 MiB for threads
HERE = "127.0.0.1"
# The onnxruntime wheel reports its use to Microsoft, through files in /tmp and ~/.cache, unless it is told not to.
NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
ONE_BY_ONE = "--model-load-thread-count=1"


def http_address(host: str) -> str:
    """The host as numbers; one of this machine alone for a server that no other machine may ask over HTTP."""
    found = numeric(host)
    return found if ipaddress.ip_address(found).is_loopback or not is_embedded() else HERE


class TritonServer:
    """A running tritonserver: `with TritonServer(runtime="cpu") as server: Client(server.grpc_url)`."""

    def __init__(
        self,
        repository: Path = REPOSITORY,
        runtime: str = "cpu",
        models: tuple[str, ...] = (),
        host: str = "127.0.0.1",
        http_host: str = "127.0.0.1",
        metrics_host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        ready_timeout_s: float = 300,
        log: TextIO | None = None,
        verbose: bool = False,
        flags: tuple[str, ...] = (),
        tls: Tls | None = None,
        drain_s: float = 60,
        step_patience_s: float = 0,
    ) -> None:
        """No models: those that are built; port 0: any free one; `log` gets warnings and errors, or all if verbose.

        A request waits step_patience_s for a step that died, which is of use where a Supervisor loads it again.
        """
        self.repository, self.runtime = Path(repository).resolve(), choose_runtime(runtime)
        named, self.left_out = (list(models), {}) if models else find_built_models(self.repository, self.runtime)
        self.models = reachable_models(self.repository, named)
        check_built_files(self.repository, self.models, self.runtime)
        self.without_gpu = self.runtime in CPU_RUNTIMES
        self.n_gpus = 0 if self.without_gpu else len(compute_capabilities())  # once: a restart is to be quick
        self.ready_timeout_s, self.log, self.verbose, self.flags = ready_timeout_s, log, verbose, checked_flags(flags)
        # HTTP has no TLS: it stays on this machine when gRPC is opened to others
        self.hosts = {"http": http_address(http_host), "grpc": numeric(host), "metrics": numeric(metrics_host)}
        asked = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self.ports = choose_ports({name: (self.hosts[name], port) for name, port in asked.items()})
        self.http_url, self.grpc_url, metrics = (address_of(self.hosts[name], self.ports[name]) for name in asked)
        self.metrics_url = f"http://{metrics}/metrics"
        self.tls_flags, self.drain_s, self.step_patience_s = tls.flags() if tls else [], drain_s, step_patience_s
        self.admin_key, self.inner_key = find_admin_key(), secrets.token_urlsafe(32)
        self.admin_headers = {ADMIN_HEADER: self.admin_key, f"triton-grpc-protocol-{ADMIN_HEADER}": self.admin_key}
        self.control = ModelControl(self.http_url, self.admin_headers)
        self.last_lines: deque[str] = deque(maxlen=50)
        self.process: subprocess.Popen[str] | None = None
        self.served_folder, self.shm_prefix, self.gate = self.repository, leftovers.PREFIX, Path()
        self.claims = contextlib.ExitStack()  # ports, the scratch folder and the shared memory of a running server

    def __enter__(self) -> "TritonServer":
        self.start()
        return self

    def start(self, is_open: bool = True) -> None:
        """Starts it and waits until it says that it is ready; ServeError if it does not.

        If it is not open, its public models refuse all requests without the inner key until `open` is called.
        """
        try:
            self._start(is_open)
        except StarvedError:
            self._start(is_open, ONE_BY_ONE)

    def open(self) -> None:
        """Lets callers in."""
        self.gate.unlink(missing_ok=True)

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def command(self, installation: Installation) -> list[str]:
        """Only the named models are loaded; nothing in a configuration is guessed."""
        command = [installation.binary, *installation.flags, f"--model-repository={self.served_folder}"]
        command += ["--model-control-mode=explicit", *(f"--load-model={model}" for model in self.models)]
        command += ["--disable-auto-complete-config", f"--exit-timeout-secs={EXIT_TIMEOUT_S}"]
        if self.runtime != "tensorrt":
            command.append(f"--model-config-name={self.runtime}")
        command += [*address_flags(self.hosts, self.ports), *self.tls_flags, *access_flags(self.admin_key)]
        return [*command, *KEEPALIVE_FLAGS, *memory_flags(self.shm_prefix, self.n_gpus), *self.flags]

    def told(self) -> dict[str, str]:
        """What the python steps learn by their environment."""
        told = {RUNTIME: self.runtime, INNER_KEY: self.inner_key, GATE: str(self.gate), **environment(self.flags)}
        return told | {STEP_PATIENCE: str(self.step_patience_s)}

    def _start(self, is_open: bool, *flags: str) -> None:
        self.last_lines.clear()
        self.failures: list[str] = []
        leftovers.sweep()
        environments.sweep_environments()
        try:
            self.claims.enter_context(claim_ports((self.hosts[name], port) for name, port in self.ports.items()))
            scratch = self.claims.enter_context(leftovers.Scratch())
            self.shm_prefix = f"{scratch.name}-"
            self.gate = scratch.folder / "warming_up"
            if not is_open:
                self.gate.touch()
            # upstream's launcher of python steps puts the path into a shell's command line, without quotes
            self.served_folder = leftovers.plain_link(scratch.folder, "models", self.repository)
            self._launch(find_installation(self.runtime, scratch.folder), flags)
            self._wait_until_ready()
            leftovers.hide(scratch.name)
        except (OSError, shutil.Error) as error:
            self.stop()
            reason = getattr(error, "strerror", None) or os.strerror(errno.ENOSPC)
            raise ServeError(f"/tmp (TMPDIR) or /dev/shm cannot be written: {reason}") from None
        except BaseException:
            self.stop()
            raise

    def _launch(self, installation: Installation, flags: tuple[str, ...]) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
        stack = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_STACK, (stack, hard))  # the child inherits it
        try:
            self.process = subprocess.Popen(
                as_child([*self.command(installation), *flags]),
                env={**HUGE_PAGES, **os.environ, **NO_TELEMETRY, **self.told(), **dict(installation.environment)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C is for us: the server is then asked to stop
            )
        finally:
            resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
        self.reader = threading.Thread(target=self._read_log, daemon=True)
        self.reader.start()

    def _read_log(self) -> None:
        assert self.process is not None
        for line in filter(str.strip, self.process.stdout or ()):  # an access line begins with an empty one
            self.last_lines.append(line.rstrip())
            if tells_why(line):
                self.failures.append(line.rstrip())
            if self.log and (self.verbose or is_news(line, self.without_gpu)):
                with contextlib.suppress(OSError):  # a full disk: go on, or the server would wait for us
                    print(line, end="", file=self.log, flush=True)

    def _wait_until_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + self.ready_timeout_s
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                with open_local(f"http://{self.http_url}/v2/health/ready", timeout=2):
                    return
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)
        ended = "was not ready in time" if self.process.poll() is None else f"ended with code {self.process.returncode}"
        self.stop()  # which also reads the log to its end
        kind = StarvedError if any(LOCK_GIVEN_UP in line for line in self.last_lines) else ServeError
        if reason := find_reason(self.failures):
            raise kind(f"tritonserver {ended}: {reason}")
        raise kind(f"tritonserver {ended}; its last lines:\n" + "\n".join(self.last_lines))

    def drain(self, models: Iterable[str]) -> None:
        """Takes no new requests for these models, and waits for those under way, at most drain_s.

        tritonserver by itself, asked to end, refuses what a request still wants from other models.
        """
        if self.process is None or self.process.poll() is not None:
            return
        public = with_streams(self.repository, models)
        with contextlib.suppress(OSError, ValueError):
            for model in public:
                self.control.unload(model, self.drain_s)
            self.control.are_unloaded(public, self.drain_s)

    def stop(self, at_once: bool = False) -> None:
        """Ends the server and its python steps, and removes what they left in /tmp and /dev/shm.

        Requests under way are finished first, in EXIT_TIMEOUT_S, unless it is to end at once.
        """
        if self.process is not None:
            if not at_once:
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(EXIT_TIMEOUT_S + 15)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # a server that hangs, python steps that outlived it
            self.process.wait()
            self.reader.join(timeout=5)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None
        self.claims.close()
