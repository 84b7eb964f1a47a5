"""Options that several commands take, and types of options."""

import argparse
import math
import os
from pathlib import Path
from typing import TypeAlias

from medimageparse_contract.request_ids import WAY_OUT, is_request_id

from medimageparse_client.cli.connection import API_KEY

ONE_PROMPT_A_STRUCTURE = (
    "Give one prompt a structure, and no synonyms: two prompts of one structure share it between them. A structure is "
    "told as present where its score is over 0.5."
)

LOCAL = "localhost:8001"
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def server_options(*, several: bool = False) -> argparse.ArgumentParser:
    """What every command takes; `several` servers are a list."""
    server = argparse.ArgumentParser(add_help=False)
    if several:
        words = f"host:port of a server, or of several with commas between; may be repeated (default: {LOCAL})"
        server.add_argument("--url", action="append", help=words)
    else:
        server.add_argument("--url", default=LOCAL, help="host:port of the server (default: %(default)s)")
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
    batch.set_defaults(store=False)
    add_prompts(batch.add_argument_group("what to look for", ONE_PROMPT_A_STRUCTURE))
    add_results(batch.add_argument_group("results besides --output"))
    add_run(batch.add_argument_group("how it runs"))
    return batch


def add_prompts(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--prompt", action="append", default=[], help="a prompt; may be repeated, and then all arguments are files"
    )
    group.add_argument("--prompts-file", type=file_name, help="a text file, one prompt a line; # begins a comment line")
    group.add_argument(
        "--preset",
        metavar="NAME",
        help="all of a set, as CT-Abdomen, or of several, as 'CT-Abdomen & CT-Thorax', instead of prompts; "
        "medimageparse structures lists them. auto takes those for modality and body part of a DICOM series",
    )
    group.add_argument(
        "--by-name",
        action="store_true",
        help="send the catalogue's sentence for a prompt that is one of its ids or names; the report has both",
    )
    group.add_argument("--modality", help="CT, MR, ...: which of a name's sentences --by-name takes")


def add_results(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--report", type=result_name, help="the server's report (default: .json beside --output; /dev/null for none)"
    )
    group.add_argument(
        "--masks-dir", type=result_name, metavar="DIR", help="folder for a mask of each prompt, called after it"
    )
    group.add_argument(
        "--statistics", type=file_name, metavar="FILE", help="numbers of all files and prompts (.csv, .tsv or .json)"
    )
    group.add_argument(
        "--preview-style",
        choices=["filled", "outline"],
        default="filled",
        help="outline leaves what lies within visible (default: %(default)s)",
    )
    group.add_argument("--json", action="store_true", help="write each report as a line to standard output, no table")
    group.add_argument("--quiet", action="store_true", help="tell errors only")
    group.add_argument(
        "-v", "--verbose", action="store_true", help="tell how long each step took, and of several files each table"
    )


def add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--timeout", type=seconds, default=600.0, help="seconds for a request (default: %(default)g)")
    group.add_argument(
        "--in-flight",
        type=int,
        choices=range(1, 33),
        metavar="N",
        default=3,
        help="requests at a time (default: 3); fewer where the server has no room for them",
    )
    group.add_argument(
        "--retry-for",
        type=not_negative,
        default=120.0,
        metavar="SECONDS",
        help="how long to wait for a server that restarts or is overloaded; 0 never (default: %(default)g)",
    )
    group.add_argument(
        "--request-id",
        type=request_id,
        metavar="ID",
        help="by which server log and report name the requests of this command; never a patient's (default: made)",
    )
    group.add_argument(
        "--recursive", action="store_true", help="search the folders in folders too; results lie in folders alike"
    )
    group.add_argument(
        "--force", action="store_true", help="write over files that are there; without it nothing is sent"
    )
    group.add_argument(
        "--skip-existing", action="store_true", help="leave out files whose results are there, to go on with a run"
    )


def file_name(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    # shells leave ~ as it is in --output=~/masks
    return Path(os.path.expanduser(text) if text.startswith("~/") else text)


def result_name(text: str) -> str:
    """A path, which may end in / for a folder that is still to be made, or - for standard output."""
    if text in ("-", "/dev/stdout", "/dev/fd/1"):
        return "-"
    return f"{file_name(text)}{os.sep * text.endswith(os.sep)}"


def request_id(text: str) -> str:
    if not is_request_id(text):
        raise argparse.ArgumentTypeError(WAY_OUT)
    return text


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


def not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError
    return value
