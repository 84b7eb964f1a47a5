"""The service's own time: what a request takes beside its networks, with graphs that compute nothing.

A client of its own sends each request; `best_ms` is the best of some, which a busy machine changes least, and `cpu_ms`
what all processes of the server used for one, the median. Of each step the row has the time by Triton's statistics in
the best request, without its queue. With several requests at once all begin together, and times are those of all of
them by their number. MB are what crossed from the public model to a step and back, counted in a server of its own.
"""

import argparse
import gzip
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import served
from idle_networks import write_graphs
from medimageparse.variants import VARIANTS
from medimageparse_serving.launch.triton_server import TritonServer
from processes import OtherLoad, PeakMemory
from recording import SUFFIXES, Row, conditions, median, parser_of, record, results_of

# the model that takes a file, and what becomes of the bytes as they are made
FILES = {
    "nii.gz": ("medimageparse_3d", partial(gzip.compress, compresslevel=1)),
    "nii": ("medimageparse_3d", bytes),
    "png": ("medimageparse", bytes),
}
STEPS = ("decode", "tokens", "text", "networks", "encode")  # as in served.CALLED
COUNTED_MODEL, MOVED = Path(__file__).with_name("counted_model.py"), "moved.json"


@contextmanager
def serving(
    options: argparse.Namespace, model: str, change: Callable[[Path], None] | None = None
) -> Iterator[TritonServer]:
    """A server whose networks compute nothing."""
    with tempfile.TemporaryDirectory(dir=options.work) as graphs:
        write_graphs(VARIANTS[options.variant + SUFFIXES[model]], options.prompts, Path(graphs))
        with served.serving(options.work, served.Setting(Path(graphs), model), change) as server:
            yield server


def moved(request: served.Request, options: argparse.Namespace) -> dict[str, float]:
    """MB to and from each step that takes much, in one request to a server whose public model counts them."""

    def count(repository: Path) -> None:
        code, config = (repository / request.model / name for name in ("1/model.py", "config.pbtxt"))
        code.rename(code.with_name("served_model.py"))
        shutil.copyfile(COUNTED_MODEL, code)
        config.write_text(config.read_text().replace("count: 2", "count: 1"))

    with serving(options, request.model, count) as server:
        request.send(server)
        counts = json.loads((server.repository / request.model / "1" / MOVED).read_text())
    steps = dict(zip(STEPS, served.CALLED[request.model], strict=True))
    ways = product(("decode", "networks", "encode"), ("in", "out"))
    return {f"{step}_{way}_mb": counts.get(steps[step], {}).get(way, 0) / 1e6 for step, way in ways}


def measure(server: TritonServer, request: served.Request, protocol: str, at_once: int, n_times: int) -> Row:
    send = partial(served.measure, server, request, at_once=at_once, protocol=protocol)
    send(1)  # each process takes its shared memory
    others = OtherLoad(server.process.pid)
    rounds = send(n_times)
    row = {"at_once": at_once, "times": n_times, "others_share": others.share()}
    with PeakMemory(server.process.pid) as memory:  # its sampling takes time
        send(1)
    best = min(rounds, key=lambda of_one: of_one.wall_s)
    best_ms, stages = 1000 * best.wall_s / at_once, stages_of(request.model, best.spent, at_once)
    row |= {"best_ms": best_ms, "median_ms": 1000 * median([of_one.wall_s for of_one in rounds]) / at_once}
    row |= {"cpu_ms": 1000 * median([of_one.cpu_s for of_one in rounds]) / at_once}
    row |= {"peak_pss_gb": memory.peak_pss / 1e9, **stages}
    return row | {"outside_ms": best_ms - stages["server_ms"] if at_once == 1 else ""}


def stages_of(model: str, spent: served.Nanoseconds, n: int) -> dict[str, float]:
    """Milliseconds of each step for one of n requests; "server" is the public model, its queue included."""
    steps = zip(STEPS, served.CALLED[model], strict=True)
    took = {f"{step}_ms": (spent[name]["success"] - spent[name]["queue"]) / 1e6 / n for step, name in steps}
    total, waited = spent[model]["success"] / 1e6 / n, spent[model]["queue"] / 1e6 / n
    return {"server_ms": total, **took, "between_ms": total - waited - sum(took.values())}


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """Of each file, from a server of its own."""
    here = conditions() | {"variant": options.variant}
    files = [(kind, n) for kind in options.files for n in (options.slices if "nii" in kind else [1])]
    for kind, n_slices in files:
        model, pack = FILES[kind]
        side = options.side or VARIANTS[options.variant + SUFFIXES[model]].image_size
        made = served.make_request(model, n_slices, options.prompts, side)
        request = replace(made, file=pack(made.file))
        sizes = {"file": kind, "file_mb": len(request.file) / 1e6, "slices": n_slices, "side": side}
        sizes |= {"prompts": options.prompts}
        mb = moved(request, options)
        with serving(options, model) as server:
            for protocol, at_once in product(options.protocols, options.at_once):
                row = measure(server, request, protocol, at_once, options.times)
                yield here | sizes | {"protocol": protocol} | row | {"ms_per_slice": row["best_ms"] / n_slices} | mb


def summary(row: Row) -> str:
    line = f"{row['file']:<7}{row['slices']:>4} slices, {row['protocol']}, {row['at_once']} at once: "
    line += f"{row['best_ms']:8.1f} ms ({row['ms_per_slice']:.2f} a slice), median {row['median_ms']:.1f}, "
    line += f"CPU {row['cpu_ms']:.0f} ms, PSS {row['peak_pss_gb']:.2f} GB, others {row['others_share']:.2f}"
    times = (f"{step} {row[f'{step}_ms'] or 0:.1f}" for step in (*STEPS, "between", "outside"))
    moved = ("decode", "networks", "encode")
    mb = (f"{step} {row[f'{step}_in_mb']:.1f}, {row[f'{step}_out_mb']:.1f}" for step in moved)
    return f"{line}\n    ms: {'; '.join(times)}\n    MB to and from: {'; '.join(mb)}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--slices", type=int, nargs="+", default=[63, 512], metavar="N")
    parser.add_argument("--side", type=int, metavar="PIXELS", help="of a slice or a picture; by default the networks'")
    parser.add_argument("--prompts", type=int, default=15, metavar="N", help="and as many labels")
    parser.add_argument("--files", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--protocols", nargs="+", choices=("grpc", "http"), default=["grpc", "http"])
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4], metavar="N", help="requests")
    parser.add_argument("--times", type=int, default=6, metavar="N", help="timed requests of each kind, after one more")
    options = parser.parse_args(arguments)
    record(results_of(options, "own_time"), rows(options), summary)


if __name__ == "__main__":
    main()
