"""python -m medimageparse_gateway: starts the gateway, or makes a key for a caller."""

import argparse
import hashlib
import resource
import secrets
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from medimageparse_contract.access_lines import ACCESS_LOGS

from medimageparse_gateway import log
from medimageparse_gateway.app import build_app
from medimageparse_gateway.connections import server_of
from medimageparse_gateway.settings import Key, Settings, SettingsError, read_settings


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["key"]:
            return make_key(arguments[1:])
        options = vars(parser().parse_args(arguments))
        return serve(read_settings(options.pop("config"), **options))
    except SettingsError as error:
        sys.stderr.write(f"medimageparse_gateway: {error}\n")
        return 2


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m medimageparse_gateway", description=__doc__)
    parser.add_argument("--config", type=Path, metavar="TOML", help="file with keys, limits and all that is below")
    parser.add_argument("--host", help="address to listen on; without keys 127.0.0.1 only")
    parser.add_argument("--port", type=int, help="8080; 0 takes a free one")
    parser.add_argument("--triton", metavar="HOST:PORT", help="gRPC of tritonserver, by default 127.0.0.1:8001")
    parser.add_argument("--tls-certificate", metavar="PEM")
    parser.add_argument("--tls-key", metavar="PEM")
    parser.add_argument("--access-log", choices=ACCESS_LOGS, help="a line for each request, by default json")
    return parser


def make_key(arguments: Sequence[str]) -> int:
    """Prints the lines of a new key for the gateway's file on stdout, and the key for the caller, once, on stderr."""
    parser = argparse.ArgumentParser("python -m medimageparse_gateway key", description=make_key.__doc__)
    parser.add_argument("name", help="of the caller, for the log")
    secret = secrets.token_hex(32)
    key = Key(parser.parse_args(arguments).name, hashlib.sha256(secret.encode()).hexdigest())
    sys.stdout.write(f'[[keys]]\nname = "{key.name}"\nsha256 = "{key.sha256}"\n')
    sys.stderr.write(f"the key of {key.name}, told only now: {secret}\n")
    return 0


def serve(settings: Settings) -> int:
    """Listens until SIGTERM or Ctrl-C; requests under way are answered first."""
    bound_process()
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        server = server_of(build_app(settings), settings)
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except (OSError, ValueError) as error:
        raise SettingsError(f"it does not start: {error}") from None
    log.set_up(settings.access_log)
    host = f"[{settings.host}]" if family == socket.AF_INET6 else settings.host
    scheme, port = "https" if settings.tls_certificate else "http", listener.getsockname()[1]
    sys.stdout.write(f"ready: {scheme}://{host}:{port}\n")
    sys.stdout.flush()
    server.run([listener])
    return 0


def bound_process() -> None:
    """Images and prompts are in memory: no core dump. Every connection is a descriptor: as many as may be."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
