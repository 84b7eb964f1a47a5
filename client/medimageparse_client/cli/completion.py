"""Completes commands, options and file names in a shell, by argcomplete's protocol.

The shell calls the command itself, with the line typed so far in its environment.
"""

import os


def is_asked() -> bool:
    return "_ARGCOMPLETE" in os.environ


def complete() -> None:
    """Tells the shell what may follow, and ends the program."""
    import argcomplete

    from medimageparse_client.cli.commands import build_parser

    argcomplete.autocomplete(build_parser())
