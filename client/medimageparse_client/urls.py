"""Where a server is: "host:port", with or without a protocol in front."""

import ipaddress
from typing import Literal, TypeAlias

Protocol: TypeAlias = Literal["grpc", "http"]
# before :// in a url -> protocol, and whether it is encrypted
SCHEMES: dict[str, tuple[Protocol, bool]] = {
    "grpc": ("grpc", False),
    "grpcs": ("grpc", True),
    "http": ("http", False),
    "https": ("http", True),
}


def split_url(url: str, protocol: Protocol | None) -> tuple[Protocol, str, bool]:
    """The protocol and "host:port" of a url with or without the protocol in front, and whether it asks for TLS."""
    scheme, _, address = url.rpartition("://")
    address = address.rstrip("/")
    if scheme not in ("", *SCHEMES) or protocol not in (None, "grpc", "http"):
        raise ValueError("the protocol is grpc or http, with TLS grpcs or https")
    named, is_encrypted = SCHEMES.get(scheme, (protocol or "grpc", False))
    if protocol and named != protocol:
        raise ValueError("the url names another protocol than protocol=")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("the url is host:port, for example localhost:8001")
    return named, address, is_encrypted


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
