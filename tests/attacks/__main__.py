"""Runs the attacks against a service of `make serve` or `make serve-demo` on this machine, and prints what held."""

import argparse
import sys

from attacks.rows import ROWS, Row
from attacks.target import Broken, Target

MIB = 2**20


def main() -> int:
    parser = argparse.ArgumentParser("attacks", description=__doc__)
    parser.add_argument("--grpc", default="127.0.0.1:8001", metavar="HOST:PORT")
    parser.add_argument("--gateway", default="127.0.0.1:8080", metavar="HOST:PORT", help="empty: there is none")
    parser.add_argument("--probes", default="127.0.0.1:8003", metavar="HOST:PORT")
    parser.add_argument("--key", default="", help="of the gateway")
    parser.add_argument("--size", type=int, default=4, metavar="N", help="how many times the form that the tests have")
    try:
        target = Target(**vars(parser.parse_args()))
    except Broken as error:
        return str(error)
    print("The service answers right. Each attack is followed by the same right request.")
    n_broken = sum(not held(row, target) for row in ROWS)
    print(f"{len(ROWS) - n_broken} of {len(ROWS)} held")
    return min(n_broken, 1)


def held(row: Row, target: Target) -> bool:
    """Prints what became of one attack."""
    if row.needs_gateway and not target.gateway:
        print(f"{row.number:2} {row.title}: not tried, there is no gateway")
        return True
    try:
        grown = attack(row, target)
    except Broken as error:
        print(f"{row.number:2} {row.title}: DID NOT HOLD: {error}")
        return False
    print(f"{row.number:2} {row.title}: held; {grown / MIB:.0f} MiB at the worst moment")
    return True


def attack(row: Row, target: Target) -> int:
    """The bytes that it took; Broken if the service did not hold."""
    target.begin()
    row.run(target)
    grown = target.grown()
    target.check()
    if grown > row.memory * target.size:
        raise Broken(f"it took {grown / MIB:.0f} MiB of memory")
    return grown


if __name__ == "__main__":
    sys.exit(main())
