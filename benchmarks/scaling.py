"""How seconds and memory grow, through the server: slices, prompts, window size, threads, instances of the networks.

One thing is varied at a time, around the first value of each list; every row has a server of its own, so that its
memory is its own. For instances, as many requests are under way at once as the largest number asked for.
"""

import argparse
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace

import served
from processes import OtherLoad, PeakMemory
from recording import Row, conditions, description_of, find_graphs, graph_of, median, parser_of, record, results_of
from runtimes import onnx_run
from served import Setting

AXES = ("slices", "prompts", "window_size", "threads", "instances")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider,CPUExecutionProvider"}


def settings(options: argparse.Namespace) -> Iterator[tuple[str, Setting]]:
    """What is varied, and how."""
    graphs = find_graphs("medimageparse_3d", options, options.precision)
    values = {axis: getattr(options, axis) for axis in AXES}
    if options.device == "cuda":  # in the server, ONNX Runtime would take the next provider
        onnx_run(graph_of(graphs, "text_encoder_3d"), "cuda")
    in_flight = options.windows_in_flight
    base = Setting(graphs, runtime=options.runtime, windows_in_flight=in_flight, providers=PROVIDERS[options.device])
    base = replace(base, **{axis: of_axis[0] for axis, of_axis in values.items()})
    yield "base", base
    for axis, of_axis in values.items():
        for value in of_axis if axis == "instances" and len(of_axis) > 1 else of_axis[1:]:
            yield axis, replace(base, **{axis: value})


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """The first request, in which the server takes its memory, is kept apart."""
    for axis, setting in settings(options):
        at_once = max(options.instances) if axis == "instances" else 1
        request = served.make_request(setting.model, setting.slices, setting.prompts)
        row = conditions() | {"variant": description_of(setting.graphs, setting.model)["variant"]}
        row |= {"runtime": setting.runtime, "precision": served.precision_of(setting), "volume": request.source}
        row |= {"axis": axis, **{axis: getattr(setting, axis) for axis in AXES}}
        with served.serving(options.work, setting) as server, PeakMemory(server.process.pid) as memory:
            (first,) = served.measure(server, request, 1)
            others = OtherLoad(server.process.pid)
            rounds = served.measure(server, request, options.requests, at_once)
            row |= {"at_once": at_once, "requests": options.requests * at_once, "others_share": others.share()}
            gpu = gpu_state() if options.device == "cuda" else {}
        seconds, n_requests = [s for of_one in rounds for s in of_one.seconds], row["requests"]
        row |= {"first_request_s": first.wall_s, "median_s": median(seconds), "slowest_s": max(seconds)}
        row |= {"s_per_slice": sum(of_one.wall_s for of_one in rounds) / (setting.slices * n_requests)}
        for name in served.NETWORKS:
            row[f"{name}_ms"] = sum(of_one.spent[name]["compute_infer"] for of_one in rounds) / 1e6 / n_requests
        yield row | memory.columns(served.PROCESSES) | gpu


def gpu_state() -> Row:
    """Name, driver and memory in use of the first GPU."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.used", "--format=csv,noheader,nounits", "--id=0"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    name, driver, mebibytes = (word.strip() for word in answer.split(","))
    return {"gpu": name, "driver": driver, "gpu_memory_gb": float(mebibytes) * 2**20 / 1e9}


def summary(row: Row) -> str:
    sizes = f"{row['slices']:>4} slices {row['prompts']:>2} prompts, window {row['window_size']}, "
    sizes += f"threads {row['threads']}, instances {row['instances']}, {row['at_once']} at once"
    line = f"{row['axis']:<12}{sizes}: {row['median_s']:8.2f} s a request, {row['s_per_slice']:7.3f} s a slice"
    return f"{line}, RSS {row['peak_rss_sum_gb']:.2f} GB, others {row['others_share']:.2f}"


def main(arguments: Sequence[str] | None = None, description: str = __doc__, **defaults: object) -> None:
    parser = parser_of(description)
    parser.add_argument("--device", choices=PROVIDERS, default="cpu")
    parser.add_argument("--runtime", choices=served.CPU_RUNTIMES, default="cpu")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("--slices", type=int, nargs="+", default=[4, 16], metavar="N")
    parser.add_argument("--prompts", type=int, nargs="+", default=[15, 5, 1], metavar="N")
    parser.add_argument("--window-size", type=int, nargs="+", default=[4, 1, 8], metavar="SLICES")
    parser.add_argument("--windows-in-flight", type=int, default=0, metavar="N", help="0: as served")
    parser.add_argument("--threads", type=int, nargs="+", default=[0, 1], metavar="N", help="0: one for each core")
    parser.add_argument("--instances", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--requests", type=int, default=2, metavar="N", help="timed ones, after a first")
    parser.set_defaults(**defaults)
    options = parser.parse_args(arguments)
    record(results_of(options, "scaling"), rows(options), summary)


if __name__ == "__main__":
    main()
