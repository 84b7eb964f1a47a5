"""Many clients for minutes, with good, wrong and impatient requests to both models: answers stay right, memory flat.

    .venv/bin/python benchmarks/soak.py

Each request is sent alone first; what eight clients at a time get must be the same, to the bit. Writes a row into
results/soak.csv, the memory over time into results/soak_memory.csv, and the plot soak.png. The exit status is 0 only if
all answers were right and memory was flat.
"""

import argparse
import csv
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from medimageparse_client import Client, InvalidRequest, RequestTimeout
from medimageparse_demo.images import make_image
from medimageparse_demo.phantoms import make_phantom
from medimageparse_demo.repository import demo_repository
from processes import field as process_field
from processes import session_processes, total
from recording import RESULTS, append_row, conditions
from serve import SHM, TritonServer

N_REQUESTS, N_CLIENTS, LIMIT_S, SEED = 1000, 8, 1500.0, 0
SAMPLES_EVERY_S = 0.5
PLOT = Path(__file__).with_name("soak.png")
MEMORY = RESULTS / "soak_memory.csv"
FLAT = 1.05  # the last quarter's median over the second quarter's; the first is warm-up
APART = 0.0001  # share of voxels; nothing is batched across requests, so 0 is expected

Answer = tuple[bytes, ...] | str  # arrays, or the words of an error
VOLUMES = {(1, 48, 64): 1, (4, 96, 96): 2, (7, 64, 120): 5, (13, 128, 112): 3}  # slices, height, width -> prompts


@dataclass(frozen=True)
class Request:
    """ask: sends it with a client."""

    name: str
    ask: Callable[[Client], Answer]
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
    found = []
    for seed, (shape, n_prompts) in enumerate(VOLUMES.items()):
        phantom = make_phantom(seed, "CT", shape)
        volume = nib.Nifti1Image(phantom.intensities, phantom.affine).to_bytes()
        prompts = ["liver", "spleen", "stomach", "aorta", "spine"][:n_prompts]
        found.append(Request(f"volume of {shape[0]} slices", segment(volume, prompts)))
    found.append(Request("wrong: no prompt left", segment(volume, ["\x07"])))
    found.append(Request("wrong: two of three dimensions", segment(volume[:200], ["liver"])))
    found.append(Request("does not wait", segment(volume, ["liver"]), timeout_s=0.05))
    for seed in range(3):
        image = make_image(seed)
        found.append(Request(f"image {seed} together", segment_image(image.pixels, ["liver", "heart"])))
    found.append(Request("image, each prompt alone", segment_image(image.pixels, ["liver", "spine"], joint=False)))
    found.append(Request("wrong: an image type that is not known", segment_image(image.pixels, None, image_type="Map")))
    found.append(Request("wrong: no image", segment_image(b"not an image", ["liver"])))
    return found


def segment(volume: bytes, prompts: list[str]) -> Callable[[Client], Answer]:
    def ask(client: Client) -> Answer:
        found = client.segment(volume, prompts)
        return found.label_map.tobytes(), found.scores.tobytes()

    return ask


def segment_image(
    image: bytes | np.ndarray, prompts: list[str] | None, **options: object
) -> Callable[[Client], Answer]:
    def ask(client: Client) -> Answer:
        found = client.segment_image(image, prompts, **options)
        return (found.probabilities.tobytes(),)

    return ask


def answer_of(server: TritonServer, request: Request, protocol: str) -> Answer:
    """What a request gets over a connection of its own."""
    url = server.grpc_url if protocol == "grpc" else server.http_url
    with Client(url, protocol=protocol, timeout_s=request.timeout_s) as client:
        try:
            return request.ask(client)
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


def soak(
    server: TritonServer, n_requests: int = N_REQUESTS, n_clients: int = N_CLIENTS, limit_s: float = LIMIT_S
) -> Soaked:
    """Sends each kind alone, then n_requests in random order from n_clients at a time; ends early at limit_s."""
    kinds, soaked, lock, ended = requests(), Soaked(), threading.Lock(), threading.Event()
    alone = {kind.name: answer_of(server, kind, "grpc") for kind in kinds}
    rng = random.Random(SEED)
    planned = [(kinds[i % len(kinds)], rng.choice(("grpc", "http"))) for i in range(n_requests)]
    rng.shuffle(planned)
    start = time.monotonic()

    def send(request: Request, protocol: str) -> None:
        if time.monotonic() > start + limit_s:
            return
        found = answer_of(server, request, protocol)
        apart = share_apart(found, alone[request.name])
        with lock:
            soaked.outcomes[request.name] += 1
            soaked.apart = max(soaked.apart, apart)
            if apart > APART:
                soaked.wrong.append(request.name)

    def sample() -> None:
        assert server.process is not None
        while not ended.wait(SAMPLES_EVERY_S):
            rss = total(process_field(folder / "status", "VmRSS") for folder in session_processes(server.process.pid))
            shm = sum(region.stat().st_blocks * 512 for region in SHM.glob(f"{server.shm_prefix}*"))
            soaked.samples.append((time.monotonic() - start, soaked.n_done, rss, shm))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    with ThreadPoolExecutor(n_clients) as executor:
        list(executor.map(send, *zip(*planned, strict=True)))
    ended.set()
    sampler.join()
    soaked.seconds = time.monotonic() - start
    return soaked


def plot(soaked: Soaked, path: Path) -> None:
    """Memory over time; the grey part is warm-up."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seconds, done, rss, shm = (np.array(column) for column in zip(*soaked.samples, strict=True))
    figure, left = pyplot.subplots(figsize=(8, 3.5), layout="constrained")
    left.axvspan(0, seconds[np.searchsorted(done, soaked.n_done // 4)], color="0.93")
    left.plot(seconds, rss / 1e9, color="tab:blue", label="RSS of all processes, GB")
    left.plot(seconds, shm / 1e9, color="tab:orange", label="/dev/shm, GB")
    left.set(xlabel="seconds", ylabel="GB", ylim=(0, None), xlim=(0, None))
    right = left.twinx()
    right.plot(seconds, done, color="0.6", linewidth=1)
    right.set(ylabel="requests answered (grey)", ylim=(0, None))
    left.legend(loc="lower right")
    left.set_title(f"{soaked.n_done} requests, {N_CLIENTS} clients, grey ground: warm-up")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=N_REQUESTS)
    parser.add_argument("--clients", type=int, default=N_CLIENTS)
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="no request is begun after that")
    arguments = parser.parse_args()
    found_at = conditions(["onnxruntime", "numpy", "nvidia-pytriton"])
    with tempfile.TemporaryDirectory() as folder, TritonServer(demo_repository(Path(folder) / "models")) as server:
        soaked = soak(server, arguments.requests, arguments.clients, arguments.limit_s)
    with MEMORY.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("seconds", "answered", "rss_bytes", "shm_bytes"))
        writer.writerows((round(sample[0], 1), *sample[1:]) for sample in soaked.samples)
    plot(soaked, PLOT)
    row = {
        "requests": soaked.n_done,
        "clients": arguments.clients,
        "kinds": len(soaked.outcomes),
        "seconds": soaked.seconds,
        "wrong_answers": len(soaked.wrong),
        "most_voxels_apart": soaked.apart,
        "rss_growth": soaked.growth(2),
        "shm_growth": soaked.growth(3),
        "rss_gb_at_end": soaked.samples[-1][2] / 1e9,
        "shm_gb_at_end": soaked.samples[-1][3] / 1e9,
    }
    append_row(RESULTS / "soak.csv", found_at | row)
    for name, value in (*row.items(), *sorted(soaked.outcomes.items())):
        print(f"{name:<44} {value if isinstance(value, int) else round(value, 4)}")
    flat = max(soaked.growth(2), soaked.growth(3)) <= FLAT
    return 0 if flat and not soaked.wrong and soaked.n_done == arguments.requests else 1


if __name__ == "__main__":
    sys.exit(main())
