"""Starts tritonserver on this model repository: `python model_repository/serve.py --runtime cpu`."""

import argparse
import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from pathlib import Path
from typing import TextIO

from triton_installation import Installation, ServeError, find_installation

REPOSITORY = Path(__file__).resolve().parent
PUBLIC_MODELS = ("medimageparse_3d", "medimageparse")

# What `make export` and `make engines` put into a network's version folder.
BUILT_FILES = {
    "cpu": ("model.onnx", "onnxruntime_model.py"),
    "onnxruntime": ("model.onnx",),
    "tensorrt": ("model.plan",),
}
# What they put beside the steps that call networks: sizes, hashes, versions.
CALLERS = ("segment_volume", "segment_image")
MAKE_TARGET = {"model.plan": "make engines"}

# A large JSON body is parsed recursively: the default stack of 8 MiB carries about 4 MB of it, then the server dies.
STACK_BYTES = 1_000_000 * 1024  # not "unlimited", which glibc takes as 2 MiB for threads
SHM = Path("/dev/shm")
EXIT_TIMEOUT_S = 10  # for requests under way; an HTTP connection that a client left open uses it up too
# The onnxruntime wheel reports its use to Microsoft, through files in /tmp and ~/.cache, unless it is told not to.
NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
# On a starved machine the wheel's server aborts when python steps that start together keep a lock for 10 s.
LOCK_GIVEN_UP = "boost::interprocess::lock_exception"
ONE_BY_ONE = "--model-load-thread-count=1"
# What the server says about a missing GPU, and no news where none is used.
NO_GPU_NEWS = re.compile("CUDA|Cuda|DCGM|pinned")


class StarvedError(ServeError):
    """The server gave up waiting for its own python steps; it may start when they start one by one."""


def called_models(config: str) -> list[str]:
    """The models that a config.pbtxt names: an ensemble's steps, and the `*_model` parameters of BLS callers."""
    steps = re.findall(r'model_name:\s*"(\w+)"', config)
    return steps + re.findall(r'key:\s*"\w+_model"\s*value:?\s*\{\s*string_value:\s*"(\w+)"', config)


def reachable_models(repository: Path, models: list[str]) -> list[str]:
    """The models and all that they call, callers first. Triton itself does not load what only BLS reaches."""
    found: list[str] = []
    queue = list(models)
    while queue:
        model = queue.pop(0)
        config = repository / model / "config.pbtxt"
        if not config.exists():
            raise ServeError(f"there is no model {model} in the repository; MODELS={','.join(PUBLIC_MODELS)}")
        if model not in found:
            found.append(model)
            queue += called_models(config.read_text())
    return found


def check_built_files(repository: Path, models: list[str], runtime: str) -> None:
    """A network is a model with a configuration per runtime; what it runs is built, and never in git."""
    wanted = [f"{m}/1/{name}" for m in models if (repository / m / "configs").is_dir() for name in BUILT_FILES[runtime]]
    wanted += [f"{m}/1/networks.json" for m in models if m in CALLERS]
    for file in wanted:
        if not (repository / file).exists():
            target = MAKE_TARGET.get(Path(file).name, "make export CHECKPOINT=... (or start: make serve-demo)")
            raise ServeError(f"{file} is missing from the model repository; it is made by: {target}")


def find_built_models(repository: Path, runtime: str) -> tuple[list[str], dict[str, str]]:
    """The public models that can be served, and for each of the others why not; ServeError if there is none."""
    built, left_out = [], {}
    for model in PUBLIC_MODELS:
        try:
            check_built_files(repository, reachable_models(repository, [model]), runtime)
            built.append(model)
        except ServeError as error:
            left_out[model] = str(error)
    if not built:
        raise ServeError(left_out[PUBLIC_MODELS[0]])
    return built, left_out


def shm_growth_bytes() -> int:
    """What the shared memory of a python step grows by: much is fast, little fits into Docker's 64 MB."""
    shm = os.statvfs(SHM)
    return max(2**20, min(64 * 2**20, shm.f_blocks * shm.f_frsize // 64))


def free_port(port: int = 0) -> int:
    """The port, if nobody listens there; any free one for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ServeError(f"port {port} is taken: stop what listens there, or choose another") from None
        return int(probe.getsockname()[1])


class TritonServer:
    """A running tritonserver: `with TritonServer(runtime="cpu") as server: Client(server.grpc_url)`."""

    def __init__(
        self,
        repository: Path = REPOSITORY,
        runtime: str = "cpu",
        models: tuple[str, ...] = (),
        host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        ready_timeout_s: float = 300,
        log: TextIO | None = None,
        verbose: bool = False,
        flags: tuple[str, ...] = (),
    ) -> None:
        """No models: those that are built; port 0: any free one; `log` gets warnings and errors, or all if verbose."""
        if runtime not in BUILT_FILES:
            raise ServeError(f"there is no runtime {runtime}; choose one of {', '.join(BUILT_FILES)}")
        self.repository, self.runtime = Path(repository).resolve(), runtime
        named, self.left_out = (list(models), {}) if models else find_built_models(self.repository, runtime)
        self.models = reachable_models(self.repository, named)
        check_built_files(self.repository, self.models, runtime)
        self.host, self.ready_timeout_s, self.log, self.verbose, self.flags = host, ready_timeout_s, log, verbose, flags
        self.ports = {"http": free_port(http_port), "grpc": free_port(grpc_port), "metrics": free_port(metrics_port)}
        address = "127.0.0.1" if host == "0.0.0.0" else host
        self.http_url, self.grpc_url = f"{address}:{self.ports['http']}", f"{address}:{self.ports['grpc']}"
        self.metrics_url = f"http://{address}:{self.ports['metrics']}/metrics"
        self.last_lines: deque[str] = deque(maxlen=50)

    def __enter__(self) -> "TritonServer":
        try:
            self._start()
        except StarvedError:
            self.last_lines.clear()
            self._start(ONE_BY_ONE)
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def command(self, installation: Installation) -> list[str]:
        """Only the named models are loaded; nothing in a configuration is guessed."""
        command = [installation.binary, *installation.flags, f"--model-repository={self.repository}"]
        command += ["--model-control-mode=explicit", *(f"--load-model={model}" for model in self.models)]
        if self.runtime != "tensorrt":
            command.append(f"--model-config-name={self.runtime}")
        for name, port in self.ports.items():
            command += [f"--{name}-port={port}", f"--{name}-address={self.host}"]
        command += ["--disable-auto-complete-config", f"--exit-timeout-secs={EXIT_TIMEOUT_S}"]
        command.append(f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}")
        command.append(f"--backend-config=python,shm-growth-byte-size={shm_growth_bytes()}")
        return [*command, *self.flags]

    def _start(self, *flags: str) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="medimageparse-"))
        self.shm_prefix = f"{self.scratch.name}-"
        self.process: subprocess.Popen[str] | None = None
        try:
            self._launch(find_installation(self.runtime, self.scratch), flags)
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _launch(self, installation: Installation, flags: tuple[str, ...]) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
        stack = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_STACK, (stack, hard))  # the child inherits it
        try:
            self.process = subprocess.Popen(
                [*self.command(installation), *flags],
                env={**os.environ, **NO_TELEMETRY, **dict(installation.environment)},
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
        for line in self.process.stdout or ():
            self.last_lines.append(line.rstrip())
            news = re.match(r"[EWF]\d{4} ", line) and not (self.runtime == "cpu" and NO_GPU_NEWS.search(line))
            if self.log and (self.verbose or news):
                print(line, end="", file=self.log, flush=True)

    def _wait_until_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + self.ready_timeout_s
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://{self.http_url}/v2/health/ready", timeout=2):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        ended = "was not ready in time" if self.process.poll() is None else f"ended with code {self.process.returncode}"
        self.stop()  # which also reads the log to its end
        starved = any(LOCK_GIVEN_UP in line for line in self.last_lines)
        kind = StarvedError if starved else ServeError
        raise kind(f"tritonserver {ended}; its last lines:\n" + "\n".join(self.last_lines))

    def stop(self) -> None:
        """Ends the server and its python steps, and removes what they left in /tmp and /dev/shm."""
        if self.process is not None:
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
        for region in SHM.glob(f"{self.shm_prefix}*"):
            region.unlink(missing_ok=True)
        shutil.rmtree(self.scratch, ignore_errors=True)


def interrupt_once(*_: object) -> None:
    """Ends the program by KeyboardInterrupt, and lets nothing disturb the stopping."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description="Starts tritonserver on the model repository, until Ctrl-C.")
    parser.add_argument("--runtime", choices=tuple(BUILT_FILES), required=True, help="what runs the networks")
    models = f"{' or '.join(PUBLIC_MODELS)}, or both with a comma between them; by default those that are built"
    parser.add_argument("--models", default="", help=models)
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 serves other machines too")
    parser.add_argument("--http-port", type=int, default=8000, help="0 takes any free port")
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--metrics-port", type=int, default=8002)
    parser.add_argument("--verbose", action="store_true", help="show the server's whole log")
    parser.add_argument("flags", nargs="*", help="further flags for tritonserver, after --")
    arguments = vars(parser.parse_args())
    arguments |= {"models": tuple(filter(None, arguments["models"].split(","))), "flags": tuple(arguments["flags"])}
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt_once)
    if shm_growth_bytes() < 16 * 2**20:
        print("serve.py: /dev/shm is under 1 GiB, too small for full-size volumes: --shm-size=4g", file=sys.stderr)
    try:
        server = TritonServer(**arguments, log=sys.stderr)
        for model, reason in server.left_out.items():
            print(f"serve.py: {model} is not served: {reason}", file=sys.stderr)
        with server:
            print(f"ready: http {server.http_url}, grpc {server.grpc_url}, metrics {server.metrics_url}")
            print(f"runtime {server.runtime}, models {', '.join(server.models)}; Ctrl-C stops it", flush=True)
            assert server.process is not None
            server.process.wait()
        print("serve.py: tritonserver ended by itself; its last lines:", *server.last_lines, sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    except ServeError as error:
        print(f"serve.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
