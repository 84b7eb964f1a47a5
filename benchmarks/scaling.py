"""How seconds and memory grow, through the server: slices, prompts, window size, threads, instances of the networks.

One thing is varied at a time, around the first value of each list; every row has a server of its own, so that its
memory is its own. For instances, as many requests are under way at once as the largest number asked for.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from inputs import Case, endless_case
from medimageparse_client import Client
from processes import OtherLoad, PeakMemory
from recording import RESULTS, append_row, conditions, median
from served import (
    CPU_RUNTIMES,
    NETWORKS,
    PRECISIONS,
    PROCESSES,
    TIMEOUT_S,
    WORK,
    Setting,
    TritonServer,
    compute_ms,
    random_graphs,
    serving,
    spent,
    timed,
    variant_of,
)

AXES = ("slices", "prompts", "window_size", "threads", "instances")
PACKAGES = ("onnxruntime", "openvino", "numpy", "nvidia-pytriton")


def settings(options: argparse.Namespace, graphs: Path) -> Iterator[tuple[str, Setting]]:
    """The axis and what is set; what stands first in every list comes once, as the axis "base"."""
    values = {axis: getattr(options, axis) for axis in AXES}
    first = {axis: value[0] for axis, value in values.items()}
    base = Setting(graphs, "CPUExecutionProvider", **first, runtime=options.runtime)
    yield "base", base
    for axis in AXES:
        of_axis = values[axis] if axis == "instances" and len(values[axis]) > 1 else values[axis][1:]
        for value in of_axis:
            yield axis, replace(base, **{axis: value})


def send(server: TritonServer, case: Case, n_requests: int, at_once: int) -> tuple[list[float], float]:
    """Seconds of each request, and of all together."""

    def one(_: int) -> float:
        with Client(server.grpc_url, timeout_s=TIMEOUT_S) as client:
            return timed(client, case, case.prompts)[0]

    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        seconds = list(pool.map(one, range(n_requests)))
    return seconds, time.perf_counter() - started


def measure_setting(setting: Setting, case: Case, at_once: int, options: argparse.Namespace) -> dict[str, object]:
    """The columns of a row; the first request, in which the server takes its memory, is kept apart."""
    with serving(options.work, setting) as server:
        assert server.process is not None
        with PeakMemory(server.process.pid) as memory:
            (first_s,), _ = send(server, case, 1, 1)
            before, others = compute_ms(server), OtherLoad(server.process.pid)
            n_requests = options.requests * at_once
            seconds, wall_s = send(server, case, n_requests, at_once)
            networks_ms = spent(before, compute_ms(server))
            others_share = others.share()
    return {
        "window_size": setting.window_size,
        "threads": setting.threads,
        "instances": setting.instances,
        "at_once": at_once,
        "requests": n_requests,
        "others_share": others_share,
        "first_request_s": first_s,
        "median_s": median(seconds),
        "slowest_s": max(seconds),
        "s_per_slice": wall_s / (setting.slices * n_requests),
        **{f"{name}_ms": networks_ms[name] / n_requests for name in NETWORKS},
        "peak_pss_gb": "" if memory.peak_pss is None else memory.peak_pss / 1e9,
        "peak_rss_sum_gb": memory.peak_rss / 1e9,
        **{f"rss_{name}_gb": memory.of_process.get(name, 0) / 1e9 for name in PROCESSES},
    }


def summary(row: Mapping[str, object]) -> str:
    sizes = f"{row['slices']:>4} slices {row['prompts']:>2} prompts, window {row['window_size']}, "
    sizes += f"threads {row['threads']}, instances {row['instances']}, {row['at_once']} at once"
    line = f"{row['axis']:<12}{sizes}: {row['median_s']:8.2f} s a request, {row['s_per_slice']:7.3f} s a slice"
    return f"{line}, RSS {row['peak_rss_sum_gb']:.2f} GB, others {row['others_share']:.2f}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="for graphs and the served copies")
    parser.add_argument("--variant", default="PUBLISHED", help="DEMO or TINY try the script out")
    parser.add_argument("--graphs", type=Path, metavar="DIR", help="serve these graphs, not random weights")
    parser.add_argument("--runtime", choices=CPU_RUNTIMES, default="cpu")
    parser.add_argument("--slices", type=int, nargs="+", default=[4, 16], metavar="N")
    parser.add_argument("--prompts", type=int, nargs="+", default=[15, 5, 1], metavar="N", help="at most 20")
    parser.add_argument("--window-size", type=int, nargs="+", default=[4, 1, 8], metavar="SLICES")
    parser.add_argument("--threads", type=int, nargs="+", default=[0, 1], metavar="N", help="0: one for each core")
    parser.add_argument("--instances", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--requests", type=int, default=2, metavar="N", help="timed ones, after a first")
    parser.add_argument("--results", type=Path, metavar="CSV", help="by default results/VARIANT/scaling.csv")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    results = options.results or RESULTS / options.variant / "scaling.csv"
    graphs = options.graphs or random_graphs(options.work, options.variant, "fp32")
    for axis, setting in settings(options, graphs):
        at_once = max(options.instances) if axis == "instances" else 1
        case = endless_case(setting.slices, setting.prompts)
        row = conditions(PACKAGES) | {
            "variant": variant_of(graphs),
            "runtime": options.runtime,
            "precision": PRECISIONS[options.runtime],
            "volume": case.source,
            "axis": axis,
            "slices": setting.slices,
            "prompts": setting.prompts,
        }
        row |= measure_setting(setting, case, at_once, options)
        append_row(results, row)
        print(summary(row), flush=True)


if __name__ == "__main__":
    main()
