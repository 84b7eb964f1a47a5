"""How seconds and memory grow, through the server: slices, prompts, window size, threads, instances of the networks.

One thing is varied at a time, around the first value of each list; every row has a server of its own, so that its
memory is its own. For instances, as many requests are under way at once as the largest number asked for.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import served
from processes import OtherLoad, PeakMemory
from recording import Row, conditions, description_of, find_graphs, median, parser_of, record, results_of
from served import Setting

AXES = ("slices", "prompts", "window_size", "threads", "instances")


def rows(base: Setting, options: argparse.Namespace, also: Callable[[], Row] = dict) -> Iterator[Row]:
    """also: asked for more columns while the server is still there"""
    values = {axis: getattr(options, axis) for axis in AXES}
    base = replace(base, **{axis: of_axis[0] for axis, of_axis in values.items()})
    settings = [("base", base)]
    for axis, of_axis in values.items():
        shown = of_axis if axis == "instances" and len(of_axis) > 1 else of_axis[1:]
        settings += [(axis, replace(base, **{axis: value})) for value in shown]
    for axis, setting in settings:
        at_once = max(options.instances) if axis == "instances" else 1
        variant, here = description_of(setting.graphs, setting.model)["variant"], conditions()
        here |= {"variant": variant, "runtime": setting.runtime, "precision": served.precision_of(setting)}
        yield here | measure(axis, setting, at_once, options, also)


def measure(axis: str, setting: Setting, at_once: int, options: argparse.Namespace, also: Callable[[], Row]) -> Row:
    """The first request, in which the server takes its memory, is kept apart."""
    request = served.make_request(setting)

    def send(_: int) -> float:
        started = time.perf_counter()
        request.send(server)
        return time.perf_counter() - started

    pool = ThreadPoolExecutor(at_once)
    with pool, served.serving(options.work, setting) as server, PeakMemory(server.process.pid) as memory:
        first_s, n_requests = send(0), options.requests * at_once
        before, others, started = served.statistics(server), OtherLoad(server.process.pid), time.perf_counter()
        seconds = list(pool.map(send, range(n_requests)))
        wall_s, spent = time.perf_counter() - started, served.spent_between(before, served.statistics(server))
        row = {"volume": request.source, "axis": axis, **{axis: getattr(setting, axis) for axis in AXES}}
        row |= {"at_once": at_once, "requests": n_requests, "others_share": others.share()}
        more = also()
    row |= {"first_request_s": first_s, "median_s": median(seconds), "slowest_s": max(seconds)}
    row |= {"s_per_slice": wall_s / (setting.slices * n_requests)}
    row |= {f"{name}_ms": spent[name]["compute_infer"] / 1e6 / n_requests for name in served.NETWORKS}
    return row | memory.columns(served.PROCESSES) | more


def summary(row: Row) -> str:
    sizes = f"{row['slices']:>4} slices {row['prompts']:>2} prompts, window {row['window_size']}, "
    sizes += f"threads {row['threads']}, instances {row['instances']}, {row['at_once']} at once"
    line = f"{row['axis']:<12}{sizes}: {row['median_s']:8.2f} s a request, {row['s_per_slice']:7.3f} s a slice"
    return f"{line}, RSS {row['peak_rss_sum_gb']:.2f} GB, others {row['others_share']:.2f}"


def parser_for(description: str, results: Path | None = None) -> argparse.ArgumentParser:
    parser = parser_of(description, results)
    parser.add_argument("--slices", type=int, nargs="+", default=[4, 16], metavar="N")
    parser.add_argument("--prompts", type=int, nargs="+", default=[15, 5, 1], metavar="N")
    parser.add_argument("--window-size", type=int, nargs="+", default=[4, 1, 8], metavar="SLICES")
    parser.add_argument("--threads", type=int, nargs="+", default=[0, 1], metavar="N", help="0: one for each core")
    parser.add_argument("--instances", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--requests", type=int, default=2, metavar="N", help="timed ones, after a first")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--runtime", choices=served.CPU_RUNTIMES, default="cpu")
    options = parser.parse_args(arguments)
    results = results_of(options, "scaling")
    setting = Setting(find_graphs("medimageparse_3d", options), runtime=options.runtime)
    record(results, rows(setting, options), summary)


if __name__ == "__main__":
    main()
