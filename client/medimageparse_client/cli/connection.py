"""The server that a command line names."""

import argparse
import os

from medimageparse_client.cli.console import WrongCommandLine
from medimageparse_client.cli.text_files import read_key
from medimageparse_client.client import Client

API_KEY = "MEDIMAGEPARSE_API_KEY"  # environment variable; as an option, others would see it in the process list


def connect(args: argparse.Namespace, timeout_s: float | None = None) -> Client:
    """A client that asks once; sends nothing yet. OSError names the file that cannot be read."""
    for path in (args.ca, args.certificate, args.certificate_key):
        if path:
            path.open("rb").close()  # the TLS library names none of them
    api_key = read_key(args.api_key_file) if args.api_key_file else os.environ.get(API_KEY) or None
    try:
        return Client(
            args.url,
            protocol=args.protocol,
            timeout_s=timeout_s or args.timeout,
            ca=args.ca,
            certificate=args.certificate,
            certificate_key=args.certificate_key,
            api_key=api_key,
            retries=0,  # a run waits for the server once, and not each of its requests
        )
    except ValueError as error:
        raise WrongCommandLine(str(error)) from error
