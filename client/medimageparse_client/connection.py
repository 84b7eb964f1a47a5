"""A gRPC connection: it is kept open by pings, and goes past proxies to this machine."""

import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from tritonclient.grpc import MAX_GRPC_MESSAGE_SIZE
from tritonclient.utils import InferenceServerException

from medimageparse_client.errors import ServerUnavailable

# milliseconds. Firewalls and load balancers forget a silent connection after four minutes, some after one
PING_EVERY, PING_ANSWER = 30_000, 60_000
# where gRPC looks for a proxy and for those it does not concern; the first that is set decides
PROXIES, EXCEPTIONS = ("grpc_proxy", "https_proxy", "http_proxy"), ("no_grpc_proxy", "no_proxy")
NO_CONNECTION = re.compile("connect|proxy|DNS|closed|reset|unreachable|handshake", re.IGNORECASE)


def channel_options(url: str) -> list[tuple[str, int]]:
    """What gRPC wants to be told of the connection to this "host:port"."""
    return [
        ("grpc.max_send_message_length", MAX_GRPC_MESSAGE_SIZE),
        ("grpc.max_receive_message_length", MAX_GRPC_MESSAGE_SIZE),
        ("grpc.keepalive_time_ms", PING_EVERY),
        ("grpc.keepalive_timeout_ms", PING_ANSWER),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),  # no limit
        ("grpc.enable_http_proxy", int(not is_this_machine(url))),
    ]


def host_of(url: str) -> str:
    return url.rpartition(":")[0].strip("[]").lower()


def is_this_machine(url: str) -> bool:
    """Whether a "host:port" never leaves this machine."""
    host = host_of(url)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def proxy_variable(url: str) -> str:
    """The variable of the environment whose proxy gRPC asks for this "host:port"; nothing if it asks none."""
    name = next((name for name in PROXIES if name in os.environ), "")
    if not os.environ.get(name) or is_this_machine(url):
        return ""
    exceptions = next((os.environ[name] for name in EXCEPTIONS if name in os.environ), "")
    return "" if any(is_excepted(host_of(url), entry.strip().lower()) for entry in exceptions.split(",")) else name


def is_excepted(host: str, entry: str) -> bool:
    """An entry is the end of a name, or a network: .hospital.org, 10.0.0.0/8."""
    if not entry:
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return host.endswith(entry)


@contextmanager
def proxies_named(url: str) -> Iterator[None]:
    """Where a proxy may be why the server cannot be reached, the error names its variable, and not its address."""
    try:
        yield
    except ServerUnavailable as error:
        name, cause = proxy_variable(url), error.__cause__
        words = cause.message() or "" if isinstance(cause, InferenceServerException) else ""
        if not name or not NO_CONNECTION.search(words):
            raise
        status = re.search(r"proxy returned response code (\d+)", words)
        reason = f"a proxy answered with HTTP {status[1]}" if status else "there was no connection"
        exceptions = next((name for name in EXCEPTIONS if name in os.environ), EXCEPTIONS[-1])
        way_out = f"{name} is set, so its proxy was asked; {exceptions}={host_of(url)} goes past it"
        raise type(error)(f"{str(error).replace(words, reason)}; {way_out}") from cause
