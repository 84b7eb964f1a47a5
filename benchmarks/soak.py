"""Many clients for minutes, with good, wrong and impatient requests to both models: answers stay right, memory flat.

    .venv/bin/python benchmarks/soak.py   # a row in results/soak.csv

Each request is sent alone first; what eight clients at a time get must be the same, to the bit. The memory over time
goes into a file beside the row. The exit status is 0 only if all answers were right and memory was flat.
"""

import argparse
import csv
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import psutil
from medimageparse_client import Client, InvalidRequest, RequestTimeout
from medimageparse_demo.images import make_image
from medimageparse_demo.phantoms import make_phantom
from medimageparse_demo.repository import demo_repository
from processes import model_of, resident_sets
from recording import RESULTS, append_row, conditions, parser_of
from served import TritonServer

N_REQUESTS, N_CLIENTS, LIMIT_S, SEED = 1000, 8, 1500.0, 0
SAMPLES_EVERY_S = 0.5
FLAT = 1.05  # the last quarter's median over the second quarter's; the first is warm-up
APART = 0.0001  # share of voxels; nothing is batched across requests, so 0 is expected
PACKAGES = ("onnxruntime", "numpy", "nvidia-pytriton")
Server = TritonServer | SimpleNamespace
Answer = tuple[bytes, ...] | str  # arrays, or the words of an error
ARRAYS = {"segment": ("label_map", "scores"), "segment_image": ("probabilities",)}
VOLUMES = {(1, 48, 64): 1, (4, 96, 96): 2, (7, 64, 120): 5, (13, 128, 112): 3}  # slices, height, width -> prompts


@dataclass(frozen=True)
class Request:
    """method: of a client, with these options."""

    name: str
    image: object
    prompts: list[str] | None
    method: str = "segment"
    options: dict[str, object] = field(default_factory=dict)
    timeout_s: float = 300.0


@dataclass
class Soaked:
    """What happened: outcomes counted, and memory as (second, answers so far, RSS of all processes, /dev/shm)."""

    outcomes: Counter[str] = field(default_factory=Counter)
    apart: float = 0.0
    wrong: list[str] = field(default_factory=list)
    samples: list[tuple[float, int, int, int]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def n_done(self) -> int:
        return sum(self.outcomes.values())

    def growth(self, column: int) -> float:
        """Median of a column of samples over the last quarter of the answers, by that over the second quarter."""
        quarters: list[list[int]] = [[], [], [], []]
        for sample in self.samples:
            quarters[min(3, 4 * sample[1] // self.n_done)].append(int(sample[column]))
        return float(np.median(quarters[3]) / np.median(quarters[1]))


def requests() -> list[Request]:
    """Every kind of request: both models, several sizes and options, mistakes, and a caller who does not wait."""
    found, of_image = [], partial(Request, method="segment_image")
    for seed, (shape, n_prompts) in enumerate(VOLUMES.items()):
        phantom = make_phantom(seed, "CT", shape)
        volume = nib.Nifti1Image(phantom.intensities, phantom.affine).to_bytes()
        prompts = ["liver", "spleen", "stomach", "aorta", "spine"][:n_prompts]
        found.append(Request(f"volume of {shape[0]} slices", volume, prompts))
    found.append(Request("wrong: no prompt left", volume, ["\x07"]))
    found.append(Request("wrong: two of three dimensions", volume[:200], ["liver"]))
    found.append(Request("does not wait", volume, ["liver"], timeout_s=0.05))
    images = [make_image(seed).pixels for seed in range(3)]
    found += [of_image(f"image {seed} together", image, ["liver", "heart"]) for seed, image in enumerate(images)]
    found.append(of_image("image, each prompt alone", images[2], ["liver", "spine"], options={"joint": False}))
    found.append(of_image("wrong: an image type that is not known", images[2], None, options={"image_type": "Map"}))
    found.append(of_image("wrong: no image", b"not an image", ["liver"]))
    return found


def answer_of(server: Server, request: Request, protocol: str) -> Answer:
    """What a request gets over a connection of its own."""
    url = server.grpc_url if protocol == "grpc" else server.http_url
    with Client(url, protocol=protocol, timeout_s=request.timeout_s) as client:
        try:
            found = getattr(client, request.method)(request.image, request.prompts, **request.options)
            return tuple(getattr(found, name).tobytes() for name in ARRAYS[request.method])
        except InvalidRequest as error:
            return f"refused: {error}"
        except RequestTimeout:
            return "gave up"


def share_apart(found: Answer, expected: Answer) -> float:
    """Share of the voxels (or probabilities) that differ; 1 for answers of another kind, or other scores."""
    if found == expected:
        return 0.0
    if isinstance(found, str) or isinstance(expected, str) or len(found[0]) != len(expected[0]):
        return 1.0
    labels, expected_labels = (np.frombuffer(answer[0], np.uint8) for answer in (found, expected))
    return max(float(np.mean(labels != expected_labels)), 1e-9)


def soak(server: Server, n_requests: int, n_clients: int, limit_s: float) -> Soaked:
    """Sends each kind alone, then n_requests in random order from n_clients at a time; ends early at limit_s."""
    kinds, soaked, lock, ended = requests(), Soaked(), threading.Lock(), threading.Event()
    alone = {kind.name: answer_of(server, kind, "grpc") for kind in kinds}
    rng = random.Random(SEED)
    planned = [(kinds[i % len(kinds)], rng.choice(("grpc", "http"))) for i in range(n_requests)]
    rng.shuffle(planned)
    start, root = time.monotonic(), psutil.Process(server.process.pid)

    def send(request: Request, protocol: str) -> None:
        if time.monotonic() > start + limit_s:
            return
        apart = share_apart(answer_of(server, request, protocol), alone[request.name])
        with lock:
            soaked.outcomes[request.name] += 1
            soaked.apart = max(soaked.apart, apart)
            soaked.wrong += [request.name] if apart > APART else []

    def sample() -> None:
        while not ended.wait(SAMPLES_EVERY_S):
            shm = shared_bytes(tritonserver_of(root))
            rss = sum(resident_sets(root).values())
            soaked.samples.append((time.monotonic() - start, soaked.n_done, rss, shm))

    background = threading.Thread(target=sample)
    background.start()
    with ThreadPoolExecutor(n_clients) as executor:
        list(executor.map(send, *zip(*planned, strict=True)))
    ended.set()
    background.join()
    soaked.seconds = time.monotonic() - start
    return soaked


def shared_bytes(server: psutil.Process | None) -> int:
    """What a tritonserver holds of /dev/shm, whose regions have no names; 0 while there is none."""
    try:
        maps = server.memory_maps() if server else []
    except psutil.Error:
        return 0
    return sum(region.rss for region in maps if region.path.startswith("/dev/shm/"))


def tritonserver_of(launcher: psutil.Process) -> psutil.Process | None:
    """The server that a serve.py has started, once it is one; or the process itself, if it is the server."""
    family = (launcher, *launcher.children())
    return next((process for process in family if model_of(process) == "tritonserver"), None)


def measure(options: argparse.Namespace) -> bool:
    """A row; whether all answers were right and memory was flat."""
    results, here = options.results or RESULTS / "soak.csv", conditions(PACKAGES)
    with tempfile.TemporaryDirectory() as folder, TritonServer(demo_repository(Path(folder) / "models")) as server:
        soaked = soak(server, options.requests, options.clients, options.limit_s)
    growth = {"rss_growth": soaked.growth(2), "shm_growth": soaked.growth(3)}
    row = {"requests": soaked.n_done, "clients": options.clients, "kinds": len(soaked.outcomes)}
    row |= {"seconds": soaked.seconds, "wrong_answers": len(soaked.wrong), "most_voxels_apart": soaked.apart, **growth}
    row |= {"rss_gb_at_end": soaked.samples[-1][2] / 1e9, "shm_gb_at_end": soaked.samples[-1][3] / 1e9}
    append_row(results, here | row)
    with results.with_name(f"{results.stem}_memory.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("seconds", "answered", "rss_bytes", "shm_bytes"))
        writer.writerows((round(sample[0], 1), *sample[1:]) for sample in soaked.samples)
    for name, value in (*row.items(), *sorted(soaked.outcomes.items())):
        print(f"{name:<44} {value if isinstance(value, int) else round(value, 4)}")
    return max(growth.values()) <= FLAT and not soaked.wrong and soaked.n_done == options.requests


def main() -> int:
    parser = parser_of(__doc__, work=False)
    parser.add_argument("--requests", type=int, default=N_REQUESTS)
    parser.add_argument("--clients", type=int, default=N_CLIENTS)
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="no request is begun after that")
    return 0 if measure(parser.parse_args()) else 1


if __name__ == "__main__":
    sys.exit(main())
