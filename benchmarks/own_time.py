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
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import served
from idle_networks import write_graphs
from medimageparse.comparison import blobs
from medimageparse.variants import VARIANTS
from medimageparse_client.formats.picture import encode_image
from medimageparse_demo.phantoms import make_phantom
from medimageparse_demo.repository import demo_repository
from medimageparse_serving.launch.triton_server import TritonServer
from processes import OtherLoad, PeakMemory, family
from recording import SUFFIXES, Row, conditions, median, parser_of, record, results_of

VOLUMES = {"nii.gz": partial(gzip.compress, compresslevel=1), "nii": bytes}
IMAGES = ("png",)
SEED, DRAWN_SLICES = 4, 16
STEPS = ("decode", "tokens", "text", "networks", "encode")  # as in served.CALLED
COUNTED_MODEL, MOVED = Path(__file__).with_name("counted_model.py"), "moved.json"
MODELS = {"3d": "medimageparse_3d", "2d": "medimageparse"}


def make_volume(n_slices: int, side: int, pack: Callable[[bytes], bytes]) -> bytes:
    """A phantom CT in int16, with noise; its slices are repeated."""
    phantom = make_phantom(SEED, "CT", (min(n_slices, DRAWN_SLICES), side, side))
    voxels = phantom.intensities[..., np.arange(n_slices) % phantom.intensities.shape[2]]
    return pack(nib.Nifti1Image(voxels, phantom.affine).to_bytes())


def make_image(side: int) -> bytes:
    """A smooth picture with noise."""
    random = np.random.default_rng(SEED)
    picture = np.clip(blobs(side, 3, random).transpose(1, 2, 0) + random.integers(-8, 8, (side, side, 3)), 0, 255)
    return encode_image(np.ascontiguousarray(picture.astype(np.uint8))).data


@contextmanager
def serving(options: argparse.Namespace, models: Sequence[str], is_counted: bool = False) -> Iterator[TritonServer]:
    """A server whose networks compute nothing; if it is counted, with the public models that write MOVED."""
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        graphs = Path(folder) / "graphs"
        for model in models:
            write_graphs(VARIANTS[options.variant + SUFFIXES[model]], options.prompts, graphs)
        repository = demo_repository(Path(folder) / "model_repository", graphs)
        for model in models if is_counted else ():
            code = repository / model / "1" / "model.py"
            code.rename(code.with_name("served_model.py"))
            shutil.copyfile(COUNTED_MODEL, code)
            one_instance = (repository / model / "config.pbtxt").read_text().replace("count: 2", "count: 1")
            (repository / model / "config.pbtxt").write_text(one_instance)
        with TritonServer(repository, "cpu", tuple(models)) as server:
            yield server


def moved(request: served.Request, options: argparse.Namespace) -> dict[str, float]:
    """MB to and from each step that takes much, in one request."""
    with serving(options, [request.model], is_counted=True) as server:
        request.send(server)
        counts = json.loads((server.repository / request.model / "1" / MOVED).read_text())
    steps = dict(zip(STEPS, served.CALLED[request.model], strict=True))
    ways = [(step, way) for step in ("decode", "networks", "encode") for way in ("in", "out")]
    return {f"{step}_{way}_mb": counts.get(steps[step], {}).get(way, 0) / 1e6 for step, way in ways}


def cpu_seconds(server: TritonServer) -> float:
    """What the server and its steps have used so far."""
    times = [process.cpu_times() for process in family(psutil.Process(server.process.pid))]
    return sum(of_one.user + of_one.system for of_one in times)


def measure(server: TritonServer, request: served.Request, protocol: str, at_once: int, n_times: int) -> Row:
    def send(_: int = 0) -> None:
        request.send(server, protocol)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(send, range(at_once)))  # each process takes its shared memory
        others, walls, cpus, stages = OtherLoad(server.process.pid), [], [], []
        for _ in range(n_times):
            before, used, started = served.statistics(server), cpu_seconds(server), time.perf_counter()
            list(pool.map(send, range(at_once)))
            walls.append(1000 * (time.perf_counter() - started) / at_once)
            cpus.append(1000 * (cpu_seconds(server) - used) / at_once)
            stages.append(stages_of(request.model, served.spent_between(before, served.statistics(server)), at_once))
        share = others.share()
        with PeakMemory(server.process.pid) as memory:  # its sampling takes time
            list(pool.map(send, range(at_once)))
    best = int(np.argmin(walls))
    row = {"at_once": at_once, "times": n_times, "others_share": share, "best_ms": walls[best]}
    row |= {"median_ms": median(walls), "cpu_ms": median(cpus), "peak_pss_gb": memory.peak_pss / 1e9}
    outside = {"outside_ms": walls[best] - stages[best]["server_ms"] if at_once == 1 else ""}
    return row | stages[best] | outside


def stages_of(model: str, spent: served.Nanoseconds, n: int) -> dict[str, float]:
    """Milliseconds of each step for one of n requests; "server" is the public model, its queue included."""
    steps = zip(STEPS, served.CALLED[model], strict=True)
    took = {f"{step}_ms": (spent[name]["success"] - spent[name]["queue"]) / 1e6 / n for step, name in steps}
    total, waited = spent[model]["success"] / 1e6 / n, spent[model]["queue"] / 1e6 / n
    return {"server_ms": total, **took, "between_ms": total - waited - sum(took.values())}


def requests(options: argparse.Namespace) -> Iterator[tuple[served.Request, Row]]:
    """Each file with its sizes."""
    prompts = list(served.PROMPTS[: options.prompts])
    for name, model in MODELS.items():
        side = options.side or VARIANTS[options.variant + SUFFIXES[model]].image_size
        for n_slices in options.slices if name == "3d" else [1]:
            for kind in (kind for kind in options.files if (kind in VOLUMES) == (name == "3d")):
                file = make_volume(n_slices, side, VOLUMES[kind]) if kind in VOLUMES else make_image(side)
                sizes = {"file": kind, "file_mb": len(file) / 1e6, "slices": n_slices, "side": side}
                yield served.Request(model, kind, file, prompts, list), sizes | {"prompts": options.prompts}


def rows(options: argparse.Namespace) -> Iterator[Row]:
    here = conditions() | {"variant": options.variant}
    models = [MODELS[name] for name in MODELS if any((kind in VOLUMES) == (name == "3d") for kind in options.files)]
    with serving(options, models) as server:
        for request, sizes in requests(options):
            mb = moved(request, options)
            for protocol in options.protocols:
                for at_once in options.at_once:
                    row = measure(server, request, protocol, at_once, options.times)
                    per_slice = {"ms_per_slice": row["best_ms"] / sizes["slices"]}
                    yield here | sizes | {"protocol": protocol} | row | per_slice | mb


def summary(row: Row) -> str:
    line = f"{row['file']:<7}{row['slices']:>4} slices, {row['protocol']}, {row['at_once']} at once: "
    line += f"{row['best_ms']:8.1f} ms ({row['ms_per_slice']:.2f} a slice), median {row['median_ms']:.1f}, "
    line += f"CPU {row['cpu_ms']:.0f} ms, PSS {row['peak_pss_gb']:.2f} GB, others {row['others_share']:.2f}"
    times = (f"{step} {row[f'{step}_ms'] or 0:.1f}" for step in (*STEPS, "between", "outside"))
    mb = (
        f"{step} {row[f'{step}_in_mb']:.1f}, {row[f'{step}_out_mb']:.1f}" for step in ("decode", "networks", "encode")
    )
    return f"{line}\n    ms: {'; '.join(times)}\n    MB to and from: {'; '.join(mb)}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--slices", type=int, nargs="+", default=[63, 512], metavar="N")
    parser.add_argument("--side", type=int, metavar="PIXELS", help="of a slice or a picture; by default the networks'")
    parser.add_argument("--prompts", type=int, default=15, metavar="N", help="and as many labels")
    parser.add_argument("--files", nargs="+", choices=(*VOLUMES, *IMAGES), default=[*VOLUMES, *IMAGES])
    parser.add_argument("--protocols", nargs="+", choices=("grpc", "http"), default=["grpc", "http"])
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4], metavar="N", help="requests")
    parser.add_argument("--times", type=int, default=6, metavar="N", help="timed requests of each kind, after one more")
    options = parser.parse_args(arguments)
    record(results_of(options, "own_time"), rows(options), summary)


if __name__ == "__main__":
    main()
