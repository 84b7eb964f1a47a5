"""Options that several commands take, and types of options."""

import argparse
import math
import os
from pathlib import Path
from typing import TypeAlias

from medimageparse_client.cli.connection import API_KEY

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def server_options() -> argparse.ArgumentParser:
    """What every command takes."""
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument("--url", default="localhost:8001", help="host:port of the server (default: %(default)s)")
    server.add_argument("--protocol", choices=["grpc", "http"], help="default: grpc, or that of http://host:port")
    server.add_argument(
        "--ca", type=file_name, metavar="FILE", help="PEM: who signed the certificate of grpcs:// or https://"
    )
    server.add_argument("--certificate", type=file_name, metavar="FILE", help="PEM: who you are, for mutual TLS")
    server.add_argument("--certificate-key", type=file_name, metavar="FILE", help="PEM: the key of that certificate")
    server.add_argument(
        "--api-key-file", type=file_name, metavar="FILE", help=f"what a proxy asks for; or set {API_KEY}"
    )
    server.add_argument("--debug", action="store_true", help="show where this program failed")
    return server


def batch_options() -> argparse.ArgumentParser:
    """What the commands take that segment files."""
    batch = argparse.ArgumentParser(add_help=False)
    batch.add_argument("--report", type=result_name, help="the server's report to write (.json)")
    batch.add_argument("--prompt", action="append", default=[], help="a prompt; may be repeated")
    batch.add_argument("--prompts-file", type=file_name, help="a text file, one prompt a line; # begins a comment line")
    batch.add_argument("--timeout", type=seconds, default=600.0, help="seconds for a request (default: %(default)g)")
    batch.add_argument(
        "--in-flight", type=int, choices=range(1, 33), metavar="N", default=3, help="requests at a time (default: 3)"
    )
    batch.add_argument(
        "--retry-for",
        type=seconds_or_0,
        default=120.0,
        metavar="SECONDS",
        help="how long to wait for a server that restarts or is overloaded; 0 never (default: %(default)g)",
    )
    batch.add_argument(
        "--skip-existing", action="store_true", help="leave out files whose results are there, to go on with a run"
    )
    return batch


def file_name(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    # shells leave ~ as it is in --output=~/masks
    return Path(os.path.expanduser(text) if text.startswith("~/") else text)


def result_name(text: str) -> Path | str:
    """A path, or - for standard output."""
    return "-" if text in ("-", "/dev/stdout", "/dev/fd/1") else file_name(text)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def seconds_or_0(text: str) -> float:
    return 0.0 if float(text) == 0 else seconds(text)
