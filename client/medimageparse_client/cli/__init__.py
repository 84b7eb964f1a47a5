"""The command `medimageparse`."""

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from gevent.hub import Hub

from medimageparse_client.cli import completion, console
from medimageparse_client.cli.commands import build_parser, installed
from medimageparse_client.cli.console import INTERRUPTED, WrongCommandLine, describe, exit_code, warn


def main(argv: list[str] | None = None) -> int:
    """Runs a command line and gives its exit code."""
    if completion.is_asked():
        completion.complete()
    argv = sys.argv[1:] if argv is None else argv
    if argv and (entry := installed().get(argv[0])):
        return int(entry.load()(argv))
    # two libraries would tell of refused certificates and of Ctrl-C in their own words too
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    Hub.NOT_ERROR = tuple({*Hub.NOT_ERROR, KeyboardInterrupt})
    with console.prepared(), stoppable():
        parser = build_parser()
        # argparse does not look for prompts after an option; it hands them back
        args, rest = parser.parse_known_args(argv)
        command: argparse.ArgumentParser = args.parser
        takes_more = hasattr(args, "arguments")
        unknown = [text for text in rest if text.startswith("-") and text != "-" or not takes_more]
        if unknown:
            command.error(f"unrecognized argument: {unknown[0]}")
        if takes_more:
            args.arguments += rest
        try:
            return int(args.run(args))
        except WrongCommandLine as error:
            command.error(str(error))
        except KeyboardInterrupt:
            warn("stopped")
            return INTERRUPTED
        except Exception as error:  # a fault of this program too is told in a sentence
            if args.debug:
                traceback.print_exception(error)
            warn(describe(error))
            return exit_code(error)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does, so that nothing half written is left; a second Ctrl-C ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
