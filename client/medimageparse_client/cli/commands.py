"""The command line: every command that there is. A new one is a module with `add_to`, and a line here."""

import argparse

from medimageparse_client.cli import evaluate, health, segment, segment_image
from medimageparse_client.cli.console import EXIT_CODE_HELP, version


def build_parser() -> argparse.ArgumentParser:
    """What it parses has `run`, the function of the command; and `arguments`, where files and prompts may follow."""
    parser = argparse.ArgumentParser(
        prog="medimageparse",
        description="Segment medical images and volumes from text on a Triton Inference Server. For research only.",
        epilog=EXIT_CODE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (segment, segment_image, evaluate, health):
        command.add_to(commands)
    return parser
