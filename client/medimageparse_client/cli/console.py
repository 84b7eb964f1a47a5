"""Messages to a person, and exit codes."""

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from io import TextIOWrapper
from typing import TextIO

from medimageparse_contract import standard_files
from tqdm import tqdm

from medimageparse_client.errors import (
    InvalidImage,
    InvalidRequest,
    InvalidVolume,
    MedImageParseError,
    RequestTimeout,
    ServerError,
    ServerUnavailable,
)
from medimageparse_client.progress import Progress

DONE, SOME_FAILED, FAULT, INTERRUPTED = 0, 1, 7, 130

# the first that fits
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (ServerUnavailable, 3),
    (RequestTimeout, 4),
    (OSError, 5),
    (InvalidVolume, 5),
    (InvalidImage, 5),
    (InvalidRequest, 6),
    (ServerError, FAULT),
)

EXIT_CODE_HELP = """\
exit codes:
    0  done                     4  no answer in time
    1  some of several failed   5  a file cannot be read or written
    2  wrong command line       6  refused; the message says what to send instead
    3  server not available     7  the server failed, or this program itself; --debug shows where
  130  stopped by Ctrl-C or SIGTERM
Of several files that all fail in one way, the code is that of one file.
"""


def version() -> str:
    """The version of the client."""
    try:
        return metadata.version("medimageparse-client")
    except metadata.PackageNotFoundError:
        return "from source, not installed"


class WrongCommandLine(Exception):
    """The message says what is wrong with it."""


@contextmanager
def prepared() -> Iterator[None]:
    """Whatever the three standard streams are, writing to them ends in no traceback in the block or after it.

    Nor do pydicom's warnings get there, also while several threads switch warnings off and on again.
    """
    standard_files.open_closed()
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, it stays until the end
        elif isinstance(stream, TextIOWrapper) and mode == "w":
            stream.reconfigure(errors="backslashreplace")  # \u809d where a terminal cannot show it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                write(stream, "")


def write(stream: TextIO, text: str) -> None:
    """`text` right away; nobody misses it where the reader has gone, for example `| head`."""
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        silence(stream)
        if not isinstance(error, BrokenPipeError):
            name = "standard error" if stream is sys.stderr else "standard output"
            raise OSError(error.errno, error.strerror, name) from error


def silence(stream: TextIO) -> None:
    """What is still in the stream's buffer would fail again when the program ends."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def warn(text: str) -> None:
    """A line on standard error, above a progress bar if there is one."""
    with suppress(OSError), tqdm.external_write_mode(file=sys.stderr):  # there is no other place to tell it
        write(sys.stderr, f"medimageparse: {text}\n")


@contextmanager
def drawn_anew(bar: tqdm) -> Iterator[None]:
    """Draws the bar each second, so that its time goes on; none that is not shown."""
    if bar.disable:
        yield
        return
    is_over = threading.Event()

    def draw() -> None:
        while not is_over.wait(1.0):
            bar.refresh()

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def bar_of_parts(part: str, n_parts: int | None = None) -> Iterator[Progress | None]:
    """What draws a bar on a terminal: slices or tiles done, seconds left, how many prompts are found; None without one.

    Until a server tells of them, and where it never does, the bar says that it waits, and how long it has.
    n_parts: how many there are, where one knows beforehand
    """
    count = f"; {n_parts} {part}s" if n_parts else ""
    form = f"sent{count}, waiting for the answer: {{elapsed}}"
    with tqdm(unit=part, leave=False, disable=None if part else True, bar_format=form) as bar, drawn_anew(bar):

        def show(done: int, total: int, found: tuple[str, ...]) -> None:
            bar.bar_format = None
            if done < bar.n or bar.total != total:  # the first, or a server that was asked again
                bar.reset(total)
            bar.n = done
            bar.set_postfix_str(f"prompts found: {len(found)}")  # which draws it; that is seldom

        yield None if bar.disable else show


def describe(error: Exception, name: object = "") -> str:
    """What went wrong in one sentence, after the name of the file that it is about."""
    if isinstance(error, OSError):
        name = error.filename or name
    return f"{name}: {sentence_of(error)}" if name else sentence_of(error)


def sentence_of(error: Exception) -> str:
    """What went wrong, of whichever file."""
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    if isinstance(error, MedImageParseError | WrongCommandLine):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    words = " ".join(str(error).split())
    return f"a fault of this program, please report it; --debug shows where: {type(error).__name__} {words}"


def exit_code(error: Exception) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), FAULT)
