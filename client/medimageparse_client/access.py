"""TLS for a connection, and the key that a proxy before the server asks for."""

import re
import ssl
from pathlib import Path
from typing import Any

import gevent.ssl
import grpc

from medimageparse_client.urls import is_this_machine


def tls_options(
    protocol: str, ca: str | Path | None, certificate: str | Path | None, certificate_key: str | Path | None
) -> dict[str, Any]:
    """What the transport wants to be told; ValueError or OSError for invalid files."""
    if bool(certificate) != bool(certificate_key):
        raise ValueError("certificate and certificate_key go together")
    try:
        context = gevent.ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise ValueError(f"{ca} is not a PEM file with a certificate") from None
    try:
        if certificate:
            context.load_cert_chain(certificate, certificate_key, password="")  # or it would ask on the terminal
    except ssl.SSLError:
        raise ValueError(
            f"{certificate} and {certificate_key} are not PEM files of a certificate and its own key, "
            "which has no passphrase"
        ) from None
    if protocol == "http":
        return {"ssl": True, "ssl_context_factory": lambda cafile: context}  # what is offered here are other CAs
    files = (Path(file).read_bytes() if file else None for file in (ca, certificate_key, certificate))
    return {"credentials": grpc.ssl_channel_credentials(*files)}  # without a CA the well-known ones


def key_headers(api_key: str | None, url: str, is_encrypted: bool) -> dict[str, str]:
    """The headers of every call, which send the key; ValueError where others could read it."""
    if api_key is None:
        return {}
    if not re.fullmatch(r"[!-~]+", api_key):
        raise ValueError("the API key is empty, or has blanks or characters outside ASCII")
    if not (is_encrypted or is_this_machine(url)):
        raise ValueError("the API key would travel unencrypted; write https:// or grpcs:// before the host")
    return {"authorization": f"Bearer {api_key}"}
