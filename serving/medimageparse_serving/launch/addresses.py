"""Where the server listens, and how this program asks it: numeric addresses, ports of its own, past any proxy."""

import contextlib
import errno
import socket
import urllib.request
from collections.abc import Iterable, Mapping

from medimageparse_serving.launch.launch_errors import ServeError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HOST_OPTIONS = {name: f"{name}-host" for name in ("http", "metrics", "gateway")}
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}

# A proxy of the environment cannot reach this machine's 127.0.0.1, or reaches its own.
open_local = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def numeric(host: str) -> str:
    """The host as numbers, IPv4 before IPv6: given a name, tritonserver's HTTP listens nowhere."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ServeError(f"--host and the like are addresses of this machine; {host!r} is none") from None
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])


def address_of(host: str, port: int) -> str:
    """ "host:port" for callers on this machine."""
    host = EVERYWHERE.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def option_of(name: str) -> str:
    return f"--{name}-port, or {name.upper()}_PORT= of make"


def try_port(host: str, port: int) -> socket.socket:
    """A socket that is bound there and does not listen: with SO_REUSEADDR this stands in nobody's way."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in host:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind((host, port))
    except BaseException:
        found.close()
        raise
    return found


def choose_ports(asked: Mapping[str, tuple[str, int]]) -> dict[str, int]:
    """Name -> its port, any free one for 0; ServeError names all that cannot be had."""
    chosen: dict[str, int] = {}
    problems = []
    with contextlib.ExitStack() as bound:
        for name, (host, port) in asked.items():
            if port and port in chosen.values():
                [other, *_] = [other for other in chosen if chosen[other] == port]
                problems.append(f"port {port} is asked for twice: choose another for one ({option_of(name)})")
                continue
            try:
                found = bound.enter_context(try_port(host, port))
            except OSError as error:
                problems.append(port_problem(error, host, name, port))
            else:
                chosen[name] = int(found.getsockname()[1])
    if problems:
        raise ServeError("; ".join(dict.fromkeys(problems)))
    return chosen


def port_problem(error: OSError, host: str, name: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken: stop what listens there, or choose another ({option_of(name)})"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine: choose another --{HOST_OPTIONS.get(name, 'host')}"
    return f"port {port} cannot be used: {error.strerror}; choose another ({option_of(name)})"


def free_port(port: int = 0) -> int:
    """The port on 127.0.0.1, if nobody listens there; any free one for 0."""
    return choose_ports({"grpc": ("127.0.0.1", port)})["grpc"]


def claim_ports(addresses: Iterable[tuple[str, int]]) -> contextlib.ExitStack:
    """Keeps other starts of this program from these ports until it is closed or this process ends.

    Between the look at a port and the server that listens there lie seconds, and two starts may look at once.
    Abstract sockets live where ports live, in the network namespace, and leave nothing behind.
    """
    with contextlib.ExitStack() as claims:
        for host, port in addresses:
            claim = claims.enter_context(socket.socket(socket.AF_UNIX))
            try:
                claim.bind(f"\0medimageparse-{host}-{port}")
            except OSError:
                raise ServeError(f"port {port} is taken by another start of this program at the same moment") from None
        return claims.pop_all()
