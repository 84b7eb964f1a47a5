"""Networks of the published size with random weights, served with RUNTIME=cpu: seconds per slice and peak memory.

The export (1.5 GB in fp32, a few minutes) is kept in --work, so that a second run starts at once.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from inputs import REAL_CT, load_case
from recording import RESULTS, append_row, conditions
from served import WORK, Setting, columns, measure, random_graphs, serving, summary

PACKAGES = ("onnxruntime", "numpy", "nvidia-pytriton")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="for graphs and the served copy")
    parser.add_argument("--variant", default="PUBLISHED", help="DEMO or TINY try the script out")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("--graphs", type=Path, metavar="DIR", help="serve these graphs, not random weights")
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--prompts", type=int, nargs="+", default=[15, 1], metavar="N", help="a row for each")
    parser.add_argument("--window-size", type=int, default=4, metavar="SLICES")
    parser.add_argument("--requests", type=int, default=3, metavar="N", help="timed ones, after a first")
    parser.add_argument("--volume", type=Path, default=REAL_CT, metavar="NPZ", help="where absent, a phantom is drawn")
    parser.add_argument("--results", type=Path, default=RESULTS / "published_size_cpu.csv", metavar="CSV")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    if not options.volume.exists():
        print("the real CT is absent: a phantom is segmented instead")
    case = load_case(options.slices, options.volume)
    graphs = options.graphs or random_graphs(options.work, options.variant, options.precision)
    for prompts in options.prompts:
        setting = Setting(graphs, "CPUExecutionProvider", options.slices, prompts, options.window_size)
        row = conditions(PACKAGES)
        with serving(options.work, setting) as server:
            row |= columns(setting, case, measure(server, case, setting, options.requests))
        append_row(options.results, row)
        print(summary(row))


if __name__ == "__main__":
    main()
