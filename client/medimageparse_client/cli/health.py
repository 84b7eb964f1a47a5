"""medimageparse health"""

import argparse
import sys

from medimageparse_client.cli.arguments import Commands, seconds, server_options
from medimageparse_client.cli.connection import connect
from medimageparse_client.cli.console import DONE, EXIT_CODE_HELP, exit_code, warn, write
from medimageparse_client.cli.gateway import gateway_state
from medimageparse_client.errors import ServerUnavailable


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "health",
        parents=[server_options()],
        help="have a tiny picture segmented by each model",
        epilog=EXIT_CODE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=health)
    parser.add_argument("--timeout", type=seconds, default=60.0, help="seconds to wait (default: %(default)g)")
    parser.add_argument("--gateway", metavar="URL", help="of the gateway (default: port 8080 of the server, if there)")


def health(args: argparse.Namespace) -> int:
    """Tells what the server says of itself, whether each model segments a tiny picture, and the gateway's state."""
    with connect(args) as client:
        state = client.health(canary=True)
    if not state.is_live:
        raise state.error or ServerUnavailable(f"the server at {args.url} does not live")
    ready = "".join(f"{name}: {'ready' if is_ready else 'not ready'}\n" for name, is_ready in state.models.items())
    gateway, is_gateway_ready = gateway_state(args)
    write(sys.stdout, f"{state.server} at {args.url}: live\n{ready}{gateway}")
    if state.problem:
        warn(state.problem)
    return DONE if state.is_ready and is_gateway_ready else exit_code(ServerUnavailable())
