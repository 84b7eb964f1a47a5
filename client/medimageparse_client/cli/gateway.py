"""Whether the gateway beside a server is ready: medimageparse health asks it over HTTP."""

import argparse
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from medimageparse_client.cli.console import WrongCommandLine
from medimageparse_client.urls import host_of

USUAL_PORT = 8080
PATIENCE_S = 5.0


def gateway_state(args: argparse.Namespace) -> tuple[str, bool]:
    """The line to write, and whether the gateway is ready; of one that was not named and is not there: nothing."""
    url = args.gateway or f"http://{host_of(args.url.rpartition('://')[2])}:{USUAL_PORT}"
    try:
        status = ask(url, args.ca)
    except (OSError, HTTPException):
        return (f"gateway at {url}: no answer\n", False) if args.gateway else ("", True)
    return f"gateway at {url}: {'ready' if status == 200 else 'not ready'}\n", status == 200


def ask(url: str, ca: object) -> int:
    """The status of its /ready."""
    try:
        parts = urlsplit(url)
        host, port, scheme = parts.hostname, parts.port, parts.scheme
    except ValueError:
        host = None
    if not host or scheme not in ("http", "https"):
        raise WrongCommandLine("--gateway is http://HOST:PORT or https://HOST:PORT")
    if scheme == "https":
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        connection: HTTPConnection = HTTPSConnection(host, port, timeout=PATIENCE_S, context=context)
    else:
        connection = HTTPConnection(host, port, timeout=PATIENCE_S)
    try:
        connection.request("GET", parts.path.rstrip("/") + "/ready")
        return connection.getresponse().status
    finally:
        connection.close()
