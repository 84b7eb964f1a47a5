"""Starts tritonserver on a model repository: `python -m medimageparse_serving.launch --runtime cpu`."""

import argparse
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from medimageparse_contract import standard_files
from medimageparse_contract.access_lines import ACCESS_LOGS, JSON
from medimageparse_contract.models import PUBLIC_MODELS
from medimageparse_contract.version import VERSION

from medimageparse_serving.launch.addresses import LOOPBACK, choose_ports, free_port, numeric
from medimageparse_serving.launch.built_files import BUILT_FILES, has_bf16
from medimageparse_serving.launch.gateway_process import GatewayProcess
from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.leftovers import SHM, Scratch
from medimageparse_serving.launch.manifests import check_manifests
from medimageparse_serving.launch.model_store import assemble
from medimageparse_serving.launch.server_log import say
from medimageparse_serving.launch.service_metrics import ServiceMetrics, checkpoints
from medimageparse_serving.launch.supervise import Supervisor
from medimageparse_serving.launch.tls import Tls
from medimageparse_serving.launch.tracing import trace_flags
from medimageparse_serving.launch.triton_flags import shm_growth_bytes
from medimageparse_serving.launch.triton_server import REPOSITORY, TritonServer, http_address
from medimageparse_serving.step_environment import ACCESS_LOG, CACHE_BYTES

# what programs that start a server want besides
__all__ = ["PUBLIC_MODELS", "REPOSITORY", "SHM", "ServeError", "Tls", "TritonServer", "free_port", "has_bf16"]

LONGEST_DRAIN_S = 24 * 3600
STEP_PATIENCE_S = 30  # to load a network of the published size takes some of them
STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def interrupt_once(*_: object) -> None:
    """Ends the program by KeyboardInterrupt, and lets nothing disturb the stopping."""
    for number in STOPPING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def stop_by_signals() -> None:
    """Stops at SIGTERM, Ctrl-C and SIGHUP (the terminal was closed). Under nohup SIGHUP stays ignored."""
    for number in STOPPING_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt_once)


def port_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**16):
        raise argparse.ArgumentTypeError("a port is a number from 0 (any free one) to 65535")
    return int(text)


def seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0
    if not 0 < found <= LONGEST_DRAIN_S:
        raise argparse.ArgumentTypeError(f"it is a number of seconds above 0, at most {LONGEST_DRAIN_S}")
    return found


def gibibytes(text: str) -> float:
    """In bytes."""
    try:
        found = float(text)
    except ValueError:
        found = 0
    if not 0.1 <= found < 2**20:
        raise argparse.ArgumentTypeError("it is a number of GiB, at least 0.1")
    return found * 2**30


def parse_arguments(given: Sequence[str] | None = None, prog: str = "medimageparse-serve") -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        prog=prog, description="Starts tritonserver on the model repository, until Ctrl-C."
    )
    parser.add_argument("--runtime", choices=tuple(BUILT_FILES), required=True, help="what runs the networks")
    models = f"{' or '.join(PUBLIC_MODELS)}, or both with a comma between them; by default those that are built"
    parser.add_argument("--models", default="", help=models)
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    parser.add_argument("--store", type=Path, metavar="DIR", help="built files from here, the repository's code alone")
    parser.add_argument("--host", default="127.0.0.1", help="of gRPC; 0.0.0.0 serves other machines too")
    parser.add_argument("--http-host", default="127.0.0.1", help="of Triton's HTTP; others only in a trusted network")
    parser.add_argument("--metrics-host", default="127.0.0.1", help="of the metrics, which tell of no content")
    parser.add_argument("--http-port", type=port_number, default=8000, help="0 takes any free port")
    parser.add_argument("--grpc-port", type=port_number, default=8001)
    parser.add_argument("--metrics-port", type=port_number, default=8002)
    parser.add_argument("--probe-port", type=port_number, default=8003, help="of --host: /startup, /ready, /live")
    parser.add_argument("--gateway-port", type=port_number, help="starts the gateway too: HTTP for callers")
    parser.add_argument("--gateway-host", default="", help="by default what its file says, else 127.0.0.1")
    parser.add_argument("--gateway-config", type=Path, metavar="TOML", help="its file: keys, limits, TLS")
    parser.add_argument("--canary-interval", type=float, default=5, metavar="S", help="seconds between canaries")
    parser.add_argument("--canary-timeout", type=float, default=60, metavar="S", help="without any answer: hung")
    parser.add_argument("--step-memory", type=gibibytes, metavar="GIB", help="a Python step with more is loaded again")
    parser.add_argument("--drain", type=seconds, default=60, metavar="S", help="for requests under way, when it stops")
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM; gRPC then takes TLS only")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM, of that certificate")
    parser.add_argument("--tls-client-ca", type=Path, metavar="FILE", help="PEM; clients need a certificate of this CA")
    parser.add_argument("--feature-cache", type=int, metavar="BYTES", help="of each image encoder on a CPU; 0: none")
    parser.add_argument("--access-log", choices=ACCESS_LOGS, help="a line for each request, without content (json)")
    parser.add_argument("--trace-url", default="", metavar="URL", help="http://HOST:4318 of an OpenTelemetry collector")
    parser.add_argument("--trace-rate", type=int, default=100, metavar="N", help="each N-th request is traced")
    parser.add_argument("--verbose", action="store_true", help="show the server's whole log")
    parser.add_argument("flags", nargs="*", help="further flags for tritonserver, after --")
    arguments = vars(parser.parse_args(given))
    certificate, key, client_ca = (arguments[f"tls_{name}"] for name in ("certificate", "key", "client_ca"))
    if bool(certificate) != bool(key) or (client_ca and not certificate):
        parser.error("TLS needs --tls-certificate and --tls-key; --tls-client-ca makes it mutual")
    return arguments | {"models": tuple(filter(None, arguments["models"].split(",")))}


def warn(options: argparse.Namespace) -> None:
    if shm_growth_bytes() < 16 * 2**20:
        say("/dev/shm is under 1 GiB, too small for full-size volumes: --shm-size=4g")
    if options.host not in LOOPBACK and not options.tls_certificate:
        say("gRPC is open to other machines and not encrypted: see --tls-certificate")
    if options.http_host in LOOPBACK:
        return
    if http_address(options.http_host) == numeric(options.http_host):
        say("Triton's HTTP is open to other machines, without TLS and keys: let in only whom you trust")
    else:
        say(
            "Triton's HTTP stays on 127.0.0.1, because a small request can end this version: other machines ask the "
            "gateway (--gateway-port) or gRPC; --http-host works with the tritonserver of the container"
        )


def gateway_of(options: argparse.Namespace, server: TritonServer) -> GatewayProcess | None:
    if options.gateway_port is None:
        return None
    if options.tls_certificate and not options.gateway_config:
        raise ServeError(
            "with TLS the gateway needs --gateway-config: a file with triton = grpcs://NAME:PORT, the name being that "
            "of the certificate, and triton_ca"
        )
    triton = "" if options.tls_certificate else server.grpc_url
    # a free one is the same after each restart
    port = choose_ports({"gateway": (gateway_address(options), options.gateway_port)})["gateway"]
    return GatewayProcess(triton, port, options.gateway_host, options.gateway_config, options.access_log)


def gateway_address(options: argparse.Namespace) -> str:
    """The host as numbers, as far as the command line says it."""
    return numeric(options.gateway_host or "127.0.0.1")


def serve(options: argparse.Namespace, repository: Path) -> None:
    """Serves until it is interrupted; ServeError if it cannot go on."""
    certificate = options.tls_certificate
    if options.feature_cache is not None:
        os.environ[CACHE_BYTES] = str(max(0, options.feature_cache))  # the python steps inherit it
    os.environ[ACCESS_LOG] = options.access_log or JSON
    server = TritonServer(
        repository,
        options.runtime,
        options.models,
        host=options.host,
        http_host=options.http_host,
        metrics_host=options.metrics_host,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        log=sys.stderr,
        verbose=options.verbose,
        flags=(*trace_flags(options.trace_url, options.trace_rate), *options.flags),
        tls=Tls(certificate, options.tls_key, options.tls_client_ca) if certificate else None,
        drain_s=options.drain,
        step_patience_s=STEP_PATIENCE_S,
    )
    for model, reason in server.left_out.items():
        say(f"{model} is not served: {reason}")
    check_manifests(server.repository, server.models, server.runtime)
    served = [model for model in PUBLIC_MODELS if model in server.models]
    times = (options.canary_interval, options.canary_timeout)
    gateway = gateway_of(options, server)
    served_checkpoints = checkpoints(server.repository, served)
    metrics = ServiceMetrics(server.runtime, served_checkpoints)
    memory = options.step_memory or float("inf")
    with Supervisor(server, served, metrics, options.probe_port, *times, gateway, memory) as supervisor:
        addresses = f"http {server.http_url}, grpc {server.grpc_url}, metrics {server.metrics_url}"
        if gateway:
            addresses = f"gateway {gateway.url}, {addresses}"
        with contextlib.suppress(OSError):  # nobody reads it any more
            print(f"ready: {addresses}, probes {supervisor.probe_url}")
            print(f"version {VERSION}, runtime {server.runtime}, models {', '.join(server.models)}")
            told = (f"{model} {checkpoint}" for model, checkpoint in served_checkpoints.items())
            print(f"checkpoints (SHA-256): {', '.join(told)}; Ctrl-C stops it", flush=True)
        supervisor.watch()


def check_ports(options: argparse.Namespace) -> None:
    """All of them, before anything is made or started; ServeError names those that are taken."""
    grpc = numeric(options.host)
    hosts = {"http": http_address(options.http_host), "grpc": grpc, "metrics": numeric(options.metrics_host)}
    hosts["probe"] = grpc
    if options.gateway_port is not None:
        hosts["gateway"] = gateway_address(options)
    choose_ports({name: (host, getattr(options, f"{name}_port")) for name, host in hosts.items()})


def command(words: Sequence[str]) -> int:
    """`medimageparse serve`, where the client is installed too."""
    return main(given=words[1:], prog="medimageparse serve")


def main(
    make_repository: Callable[[Path], object] | None = None,
    given: Sequence[str] | None = None,
    prog: str = "medimageparse-serve",
) -> int:
    """Serves --repository, or one that is made for this start alone and removed after it."""
    standard_files.open_closed()
    options = argparse.Namespace(**parse_arguments(given, prog))
    stop_by_signals()
    try:
        check_ports(options)
        warn(options)
        if options.store and make_repository is None:
            make_repository = partial(assemble, options.repository, options.store)
        if make_repository is None:
            serve(options, options.repository)
            return 0
        with Scratch() as scratch:
            repository = scratch.folder / "model_repository"
            try:
                make_repository(repository)
            except (OSError, shutil.Error):
                raise ServeError("the model repository cannot be copied to /tmp (TMPDIR): is there room?") from None
            serve(options, repository)
    except KeyboardInterrupt:
        pass
    except ServeError as error:
        say(str(error))
        return 1
    return 0
