"""The proxies that gRPC asks by variables of the environment: which one, and what to say where it is in the way."""

import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from tritonclient.utils import InferenceServerException

from medimageparse_client.errors import ServerUnavailable
from medimageparse_client.urls import host_of, is_this_machine

# where gRPC looks for a proxy and for those it does not concern; the first that is set decides
PROXIES, EXCEPTIONS = ("grpc_proxy", "https_proxy", "http_proxy"), ("no_grpc_proxy", "no_proxy")
NO_CONNECTION = re.compile("connect|proxy|DNS|closed|reset|unreachable|handshake", re.IGNORECASE)


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
