"""Many clients for minutes, with good, wrong and impatient requests to both models: answers stay right, memory flat.

    .venv/bin/python benchmarks/soak.py   # a row in results/soak.csv

Each request is sent alone first; what eight clients at a time get must be the same, to the bit. The exit status is 0
only if all answers were right and memory was flat.
"""

import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
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

N_CLIENTS, SEED = 8, 0
SAMPLES_EVERY_S = 0.5
FLAT = 1.05  # the last quarter's median over the second quarter's; the first is warm-up
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
    """What happened: outcomes counted, wrong ones by name, and memory as (answers so far, RSS, /dev/shm), in bytes."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[tuple[int, int, int]] = field(default_factory=list)
    seconds: float = 0.0

    def growth(self) -> tuple[float, float]:
        """Of RSS and /dev/shm: the median over the last quarter of the answers, by that over the second quarter."""
        answers, *memory = np.array(self.samples).T
        quarter = 4 * answers // self.outcomes.total()
        return tuple(float(np.median(of[quarter >= 3]) / np.median(of[quarter == 1])) for of in memory)


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


def soak(server: Server, n_requests: int, n_clients: int) -> Soaked:
    """Sends each kind alone, then n_requests in random order from n_clients at a time."""
    kinds, soaked, rng = requests(), Soaked(), random.Random(SEED)
    alone = {kind.name: answer_of(server, kind, "grpc") for kind in kinds}
    planned = [(kinds[i % len(kinds)], rng.choice(("grpc", "http"))) for i in range(n_requests)]
    rng.shuffle(planned)
    started, root = time.monotonic(), psutil.Process(server.process.pid)

    def is_right(request: Request, protocol: str) -> bool:
        return answer_of(server, request, protocol) == alone[request.name]

    with ThreadPoolExecutor(n_clients) as executor:
        answers = [executor.submit(is_right, *one) for one in planned]
        while (waited := wait(answers, SAMPLES_EVERY_S)).not_done:
            rss = sum(resident_sets(root).values())
            soaked.samples.append((len(waited.done), rss, shared_bytes(tritonserver_of(root))))
    soaked.seconds = time.monotonic() - started
    for (request, _), answer in zip(planned, answers, strict=True):
        soaked.outcomes[request.name] += 1
        soaked.wrong += [] if answer.result() else [request.name]
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


def main() -> int:
    parser = parser_of(__doc__, results=RESULTS / "soak.csv", work=False)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=N_CLIENTS)
    options = parser.parse_args()
    here = conditions(PACKAGES)
    with tempfile.TemporaryDirectory() as folder, TritonServer(demo_repository(Path(folder) / "models")) as server:
        soaked = soak(server, options.requests, options.clients)
    rss_growth, shm_growth = soaked.growth()
    _, rss, shm = soaked.samples[-1]
    row = {"requests": options.requests, "clients": options.clients, "kinds": len(soaked.outcomes)}
    row |= {"seconds": soaked.seconds, "wrong_answers": len(soaked.wrong), "rss_growth": rss_growth}
    row |= {"shm_growth": shm_growth, "rss_gb_at_end": rss / 1e9, "shm_gb_at_end": shm / 1e9}
    append_row(options.results, here | row)
    for name, value in (*row.items(), *sorted(soaked.outcomes.items())):
        print(f"{name:<44} {value if isinstance(value, int) else round(value, 4)}")
    return 1 if soaked.wrong or max(rss_growth, shm_growth) > FLAT else 0


if __name__ == "__main__":
    sys.exit(main())
