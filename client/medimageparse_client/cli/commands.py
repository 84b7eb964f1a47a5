"""The command line: every command that there is. A new one is a module with `add_to`, and a line here."""

import argparse
from importlib.metadata import EntryPoint, entry_points

from medimageparse_client.cli import cohort, evaluate, health, segment, segment_image, structures
from medimageparse_client.cli.console import EXIT_CODE_HELP, version

GROUP = "medimageparse.commands"


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
    for command in (segment, segment_image, cohort, structures, evaluate, health):
        command.add_to(commands)
    for subparser in commands.choices.values():
        subparser.set_defaults(parser=subparser)
    for name, entry in installed().items():
        commands.add_parser(name, help=f"of {entry.value.partition('.')[0]}; {name} --help says more", add_help=False)
    return parser


def installed() -> dict[str, EntryPoint]:
    """The commands that other packages of this project add where they are installed: each takes the arguments, its
    name first, and gives the exit code."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}
