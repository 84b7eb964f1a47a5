"""Starts tritonserver on this model repository: `python model_repository/serve.py --runtime cpu`."""

import argparse
import contextlib
import errno
import importlib.util
import json
import os
import re
import resource
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

import leftovers
from manifests import check_manifests, compute_capabilities
from model_calls import PUBLIC_MODELS, reachable_models
from supervise import Supervisor, say
from triton_installation import CPU_RUNTIMES, Installation, ServeError, find_installation

REPOSITORY = Path(__file__).resolve().parent

# What `make export` and `make engines` put into a network's version folder.
BUILT_FILES = {
    "cpu": ("model.onnx", "onnxruntime_model.py"),
    "cpu-bf16": ("model.onnx", "onnxruntime_model.py", "openvino_model.py"),
    "onnxruntime": ("model.onnx",),
    "tensorrt": ("model.plan",),
}
MAKE_TARGET = {"model.plan": "make engines"}
# Without these a processor is slower in bf16 than in fp32.
BF16_INSTRUCTIONS = {"amx_bf16", "avx512_bf16"}

# A large JSON body is parsed recursively: the default stack of 8 MiB carries about 4 MB of it, then the server dies.
STACK_BYTES = 1_000_000 * 1024  # not "unlimited", which glibc takes as 2 MiB for threads
SHM = leftovers.SHM
DRAIN_S = 60
EXIT_TIMEOUT_S = 10  # for requests under way; an HTTP connection that a client left open uses it up too
# The onnxruntime wheel reports its use to Microsoft, through files in /tmp and ~/.cache, unless it is told not to.
NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
# Features pass from encoder to decoder in it; what does not fit goes through the host's memory: deploy/gpu.md.
CUDA_POOL_BYTES = 2 * 2**30
# On a starved machine the wheel's server aborts when python steps that start together keep a lock for 10 s.
LOCK_GIVEN_UP = "boost::interprocess::lock_exception"
ONE_BY_ONE = "--model-load-thread-count=1"
# What the server says about a missing GPU, and no news where none is used.
NO_GPU_NEWS = re.compile("CUDA|Cuda|DCGM|pinned")


# With these anybody could replace a model, write the log over a file or learn what others send; the key opens them.
RESTRICTED_APIS = "model-repository,shared-memory,statistics,trace,logging"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
RUNTIME = "MEDIMAGEPARSE_RUNTIME"  # for the reports
ADMIN_HEADER, ADMIN_KEY = "admin-key", "MEDIMAGEPARSE_ADMIN_KEY"


# The server is to die with whoever started it (more exactly: with the thread), however that ends.
DIE_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
# How it says why it does not start: its own words and the model's; ensembles fail because of others.
LOAD_FAILED = re.compile(
    r"(?:load failed for model|Poll failed for model directory|failed to load) '(\w+)'(?:: | version \d+: )"
    r"(?:version \d+ is at UNAVAILABLE state: )?(?!.*ensemble '\w+' depends)(.*)"
)
QUOTES = '";'  # what the log puts around its lines
NO_SHM = "/dev/shm is full or too small: make it larger (docker run --shm-size=4g) or free what others keep there"


class StarvedError(ServeError):
    """The server gave up waiting for its own python steps; it may start when they start one by one."""


def check_built_files(repository: Path, models: list[str], runtime: str) -> None:
    """A network is a model with a configuration per runtime; what it runs is built, and never in git."""
    wanted = [f"{m}/1/{name}" for m in models if (repository / m / "configs").is_dir() for name in BUILT_FILES[runtime]]
    wanted += [f"{m}/1/networks.json" for m in models if m in PUBLIC_MODELS]  # what they put beside the callers
    for file in wanted:
        if not (repository / file).exists():
            target = MAKE_TARGET.get(Path(file).name, "make export CHECKPOINT=... (or start: make serve-demo)")
            raise ServeError(f"{file} is missing from the model repository; it is made by: {target}")


def has_bf16() -> bool:
    """Whether this processor multiplies bf16 matrices."""
    return not BF16_INSTRUCTIONS.isdisjoint(Path("/proc/cpuinfo").read_text().split())


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


@dataclass(frozen=True)
class Tls:
    """PEM files for gRPC. With `client_ca`, only clients with a certificate of that CA are served: mutual TLS."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def flags(self) -> list[str]:
        """For tritonserver; files that are no use are refused here, with the reason."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, password="")  # or it would ask on the terminal
        except ssl.SSLError:
            raise ServeError(
                "TLS: certificate and key are not PEM files that belong together, the key without a passphrase"
            ) from None
        except OSError as error:
            raise ServeError(f"TLS: the certificate or its key cannot be read: {error.strerror}") from None
        flags = [f"--grpc-server-cert={self.certificate}", f"--grpc-server-key={self.key}"]
        if self.client_ca is None:
            return ["--grpc-use-ssl=true", *flags]
        try:
            context.load_verify_locations(self.client_ca)
        except ssl.SSLError:
            raise ServeError("TLS: the CA of the clients is not a PEM file of certificates") from None
        except OSError as error:
            raise ServeError(f"TLS: the CA of the clients cannot be read: {error.strerror}") from None
        return ["--grpc-use-ssl-mutual=true", *flags, f"--grpc-root-cert={self.client_ca}"]


def find_admin_key() -> str:
    """The operator's own key from the environment, else one that nobody knows."""
    key = os.environ.get(ADMIN_KEY) or secrets.token_urlsafe(32)
    if not re.fullmatch(r"[\w-]{16,}", key, re.ASCII):
        raise ServeError(f"{ADMIN_KEY} is at least 16 letters, digits, - or _; left out, a random one is taken")
    return key


def shm_growth_bytes() -> int:
    """What the shared memory of a python step grows by: much is fast, little fits into Docker's 64 MB."""
    shm = os.statvfs(SHM)
    return max(2**20, min(64 * 2**20, shm.f_blocks * shm.f_frsize // 64))


def find_reason(lines: Iterable[str]) -> str:
    """Why the server did not start, in one sentence; nothing if it did not say."""
    found = [match for line in lines if (match := LOAD_FAILED.search(line))]
    if any("shared memory key" in match[2] for match in found):
        return NO_SHM
    if not found:
        return ""
    model, words = found[0].groups()
    return f"{model} does not load: {words.rstrip(QUOTES)}"


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
        http_host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        ready_timeout_s: float = 300,
        log: TextIO | None = None,
        verbose: bool = False,
        flags: tuple[str, ...] = (),
        tls: Tls | None = None,
    ) -> None:
        """No models: those that are built; port 0: any free one; `log` gets warnings and errors, or all if verbose."""
        if runtime not in BUILT_FILES:
            raise ServeError(f"there is no runtime {runtime}; choose one of {', '.join(BUILT_FILES)}")
        if runtime == "cpu-bf16" and not has_bf16():
            say("this processor has no instructions for bf16, so all networks run in fp32: RUNTIME=cpu")
            runtime = "cpu"
        if runtime == "cpu-bf16" and not importlib.util.find_spec("openvino"):
            raise ServeError("RUNTIME=cpu-bf16 needs OpenVINO: make openvino")
        self.repository, self.runtime = Path(repository).resolve(), runtime
        named, self.left_out = (list(models), {}) if models else find_built_models(self.repository, runtime)
        self.models = reachable_models(self.repository, named)
        check_built_files(self.repository, self.models, runtime)
        self.n_gpus = 0 if runtime in CPU_RUNTIMES else len(compute_capabilities())  # once: a restart is to be quick
        self.ready_timeout_s, self.log, self.verbose, self.flags = ready_timeout_s, log, verbose, flags
        self.ports = {"http": free_port(http_port), "grpc": free_port(grpc_port), "metrics": free_port(metrics_port)}
        # HTTP has no TLS: it stays on this machine, behind a proxy, when gRPC is opened to others
        self.hosts = {"http": http_host, "grpc": host, "metrics": http_host}
        http, grpc, metrics = (
            f"{'127.0.0.1' if host == '0.0.0.0' else host}:{self.ports[name]}" for name, host in self.hosts.items()
        )
        self.http_url, self.grpc_url, self.metrics_url = http, grpc, f"http://{metrics}/metrics"
        self.tls_flags = tls.flags() if tls else []
        self.admin_key = find_admin_key()
        self.admin_headers = {ADMIN_HEADER: self.admin_key, f"triton-grpc-protocol-{ADMIN_HEADER}": self.admin_key}
        self.last_lines: deque[str] = deque(maxlen=50)
        self.process: subprocess.Popen[str] | None = None
        self.scratch: Path | None = None
        self.claim: IO[bytes] | None = None

    def __enter__(self) -> "TritonServer":
        self.start()
        return self

    def start(self) -> None:
        """Starts it and waits until it says that it is ready; ServeError if it does not."""
        try:
            self._start()
        except StarvedError:
            self._start(ONE_BY_ONE)

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def command(self, installation: Installation) -> list[str]:
        """Only the named models are loaded; nothing in a configuration is guessed."""
        command = [installation.binary, *installation.flags, f"--model-repository={self.repository}"]
        command += ["--model-control-mode=explicit", *(f"--load-model={model}" for model in self.models)]
        if self.runtime != "tensorrt":
            command.append(f"--model-config-name={self.runtime}")
        command += [f"--cuda-memory-pool-byte-size={gpu}:{CUDA_POOL_BYTES}" for gpu in range(self.n_gpus)]
        command.append("--grpc-infer-allocation-pool-size=0")  # else up to eight answered requests keep their volumes
        for name, port in self.ports.items():
            command += [f"--{name}-port={port}", f"--{name}-address={self.hosts[name]}"]
        for option in ("http-restricted-api", "grpc-restricted-protocol"):
            command.append(f"--{option}={RESTRICTED_APIS}:{ADMIN_HEADER}={self.admin_key}")
        command += [*self.tls_flags, "--disable-auto-complete-config", f"--exit-timeout-secs={EXIT_TIMEOUT_S}"]
        command.append(f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}")
        command.append(f"--backend-config=python,shm-growth-byte-size={shm_growth_bytes()}")
        return [*command, *self.flags]

    def _start(self, *flags: str) -> None:
        self.last_lines.clear()
        self.failures: list[str] = []
        leftovers.sweep()
        try:
            scratch = self.scratch = Path(tempfile.mkdtemp(prefix=leftovers.PREFIX))
        except OSError as error:
            raise ServeError(f"no folder for temporary files can be made: {error.strerror}; see TMPDIR") from None
        self.shm_prefix = f"{scratch.name}-"
        try:
            self.claim = leftovers.claim(scratch.name)
            self._launch(find_installation(self.runtime, scratch), flags)
            self._wait_until_ready()
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
                [sys.executable, "-c", DIE_WITH_PARENT, str(os.getpid()), *self.command(installation), *flags],
                env={**os.environ, **NO_TELEMETRY, RUNTIME: self.runtime, **dict(installation.environment)},
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
            if LOAD_FAILED.search(line):
                self.failures.append(line.rstrip())
            news = re.match(r"[EWF]\d{4} ", line) and not (self.runtime in CPU_RUNTIMES and NO_GPU_NEWS.search(line))
            if self.log and (self.verbose or news):
                with contextlib.suppress(OSError):  # a full disk: go on, or the server would wait for us
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
        if reason := find_reason(self.failures):
            raise kind(f"tritonserver {ended}: {reason}")
        raise kind(f"tritonserver {ended}; its last lines:\n" + "\n".join(self.last_lines))

    def drain(self, models: Iterable[str]) -> None:
        """Takes no new requests for these models, and waits for those under way, at most DRAIN_S.

        tritonserver by itself, asked to end, refuses what a request still wants from other models.
        """
        if self.process is None or self.process.poll() is not None:
            return
        deadline = time.monotonic() + DRAIN_S
        with contextlib.suppress(OSError, ValueError):
            for model in models:
                self._ask_repository(f"models/{model}/unload")
            while time.monotonic() < deadline:
                if not any(model.get("state") == "UNLOADING" for model in self._ask_repository("index")):
                    return
                time.sleep(0.1)

    def _ask_repository(self, path: str) -> list[dict[str, str]]:
        url = f"http://{self.http_url}/v2/repository/{path}"
        request = urllib.request.Request(url, b"{}", self.admin_headers)
        with urllib.request.urlopen(request, timeout=DRAIN_S) as answer:
            found: list[dict[str, str]] = json.loads(answer.read() or b"[]")
        return found

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
        if self.scratch is not None:
            leftovers.remove(self.scratch.name)
        if self.claim is not None:
            self.claim.close()
            self.claim = None


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
    parser.add_argument("--host", default="127.0.0.1", help="of gRPC; 0.0.0.0 serves other machines too")
    parser.add_argument("--http-host", default="127.0.0.1", help="of HTTP and metrics, which have no TLS: see deploy/")
    parser.add_argument("--http-port", type=int, default=8000, help="0 takes any free port")
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--metrics-port", type=int, default=8002)
    parser.add_argument("--probe-port", type=int, default=8003, help="of --host: /startup, /ready, /live")
    parser.add_argument("--canary-interval", type=float, default=5, metavar="S", help="seconds between canaries")
    parser.add_argument("--canary-timeout", type=float, default=60, metavar="S", help="without any answer: hung")
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM; gRPC then takes TLS only")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM, of that certificate")
    parser.add_argument("--tls-client-ca", type=Path, metavar="FILE", help="PEM; clients need a certificate of this CA")
    parser.add_argument("--verbose", action="store_true", help="show the server's whole log")
    parser.add_argument("flags", nargs="*", help="further flags for tritonserver, after --")
    arguments = vars(parser.parse_args())
    supervision = {
        "probe_port": arguments.pop("probe_port"),
        "interval_s": arguments.pop("canary_interval"),
        "patience_s": arguments.pop("canary_timeout"),
    }
    certificate, key, client_ca = (arguments.pop(f"tls_{name}") for name in ("certificate", "key", "client_ca"))
    if bool(certificate) != bool(key) or (client_ca and not certificate):
        parser.error("TLS needs --tls-certificate and --tls-key; --tls-client-ca makes it mutual")
    arguments |= {"models": tuple(filter(None, arguments["models"].split(","))), "flags": tuple(arguments["flags"])}
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt_once)
    if shm_growth_bytes() < 16 * 2**20:
        say("/dev/shm is under 1 GiB, too small for full-size volumes: --shm-size=4g")
    if arguments["host"] not in LOOPBACK and not certificate:
        say("gRPC is open to other machines and not encrypted: see --tls-certificate")
    if arguments["http_host"] not in LOOPBACK:
        say("HTTP is open to other machines, and has no TLS: see deploy/nginx.conf")
    try:
        tls = Tls(certificate, key, client_ca) if certificate else None
        server = TritonServer(**arguments, tls=tls, log=sys.stderr)
        for model, reason in server.left_out.items():
            say(f"{model} is not served: {reason}")
        check_manifests(server.repository, server.models, server.runtime)
        served = [model for model in PUBLIC_MODELS if model in server.models]
        with Supervisor(server, served, **supervision) as supervisor:
            print(f"ready: http {server.http_url}, grpc {server.grpc_url}, metrics {server.metrics_url}", end=", ")
            print(f"probes {supervisor.probe_url}")
            print(f"runtime {server.runtime}, models {', '.join(server.models)}; Ctrl-C stops it", flush=True)
            supervisor.watch()
    except KeyboardInterrupt:
        return 0
    except ServeError as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
