"""What a run tells besides its files: tables, JSON lines, warnings, times."""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import TextIO

from medimageparse_client.cli.console import warn, write


class Voice:
    """Tables go to standard output, unless a result or JSON goes there; errors and warnings to standard error.

    --quiet leaves errors only. --json writes a line for each file. -v adds times, and for several files their tables.
    """

    def __init__(self, args: argparse.Namespace, has_output: bool) -> None:
        self.is_json, self.is_quiet, self.is_verbose = args.json, args.quiet, args.verbose
        self._stream: TextIO = sys.stderr if has_output or args.json else sys.stdout

    def table(self, text: str) -> None:
        if not (self.is_json or self.is_quiet):
            write(self._stream, text)

    def sums(self, text: str) -> None:
        if not self.is_quiet:
            write(self._stream, text)

    def note(self, text: str) -> None:
        if not self.is_quiet:
            warn(text)

    def json(self, source: object, told: Mapping[str, object]) -> None:
        """One line: the file's name and its report, or its error."""
        if self.is_json:
            text = json.dumps({"file": str(source)} | dict(told), ensure_ascii=False)
            write(sys.stdout, text + "\n")

    def times(self, source: object, milliseconds: Mapping[str, float]) -> None:
        if self.is_verbose and not self.is_quiet:
            steps = ", ".join(f"{step} {ms:.0f} ms" for step, ms in milliseconds.items())
            warn(f"{source}: {steps or 'the server tells no times'}")
