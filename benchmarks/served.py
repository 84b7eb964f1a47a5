"""Requests to a real tritonserver: what the served benchmarks share, and all that they import of the server."""

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import tritonclient.grpc
from medimageparse.comparison import blobs
from medimageparse.served_tensors import networks
from medimageparse.variants import PUBLISHED, PUBLISHED_2D
from medimageparse_client import Client
from medimageparse_client.formats.picture import encode_image
from medimageparse_client.servers import channel_options
from medimageparse_contract.categories import CLASSES
from medimageparse_demo.phantoms import STRUCTURES, make_phantom, windowed
from medimageparse_demo.repository import demo_repository
from medimageparse_serving.launch.built_files import has_bf16 as has_bf16
from medimageparse_serving.launch.triton_installation import CPU_RUNTIMES as CPU_RUNTIMES
from medimageparse_serving.launch.triton_server import TritonServer
from medimageparse_serving.prompts.clip_tokenizer import tokenize as tokenize
from processes import cpu_seconds
from recording import IMAGE_IN_BF16, description_of, variant_of

TIMEOUT_S = 3600.0
NETWORKS = ("text_encoder_3d", "image_encoder_3d", "mask_decoder_3d")
CALLED = {  # by each public model, in this order; the fourth is the ensemble of image encoder and mask decoder
    "medimageparse_3d": ("decode_volume", "tokenize_prompts", "text_encoder_3d", "segment_window_3d", "encode_masks"),
    "medimageparse": ("decode_image", "tokenize_prompts", "text_encoder", "segment_pixels", "encode_probabilities"),
}
PROCESSES = ("tritonserver", "decode_volume", "tokenize_prompts", "medimageparse_3d", "encode_masks", *NETWORKS)
PHANTOM_SEED, DRAWN_SLICES = 4, 16
SIDES = {"medimageparse_3d": PUBLISHED.image_size, "medimageparse": PUBLISHED_2D.image_size}
PROMPTS = (*STRUCTURES, *(f"{name} in a CT scan of the abdomen" for name in CLASSES))
Nanoseconds = dict[str, dict[str, float]]  # model -> success, queue, compute_input, compute_infer, compute_output


@dataclass(frozen=True)
class Setting:
    """What is varied from row to row; graphs: of one public model, as `python -m medimageparse export` writes them.

    windows_in_flight: 0 as served; threads, instances: of each network, 0 threads are one a core
    """

    graphs: Path
    model: str = "medimageparse_3d"
    slices: int = 1
    prompts: int = 1
    window_size: int = 4
    windows_in_flight: int = 0
    threads: int = 0
    instances: int = 1
    runtime: str = "cpu"
    providers: str = "CPUExecutionProvider"


@dataclass(frozen=True)
class Request:
    """file: as it is sent; shown: what the networks see of it, slices [D, H, W] or a picture [H, W, 3] in uint8."""

    model: str
    source: str
    file: bytes
    prompts: list[str]
    shown: np.ndarray

    def send(self, server: TritonServer, protocol: str = "grpc") -> None:
        url = server.grpc_url if protocol == "grpc" else server.http_url
        with Client(url, protocol=protocol, timeout_s=TIMEOUT_S) as client:
            segment = client.segment if self.model == "medimageparse_3d" else client.segment_image
            segment(self.file, self.prompts)


@dataclass(frozen=True)
class Round:
    """Requests that begin together: seconds of each and of all, CPU seconds of all processes of the server."""

    seconds: list[float]
    wall_s: float
    cpu_s: float
    spent: Nanoseconds


def precision_of(setting: Setting) -> str:
    written = description_of(setting.graphs, setting.model)["precision"]
    return IMAGE_IN_BF16 if setting.runtime == "cpu-bf16" else written


def make_request(model: str, n_slices: int, n_prompts: int, side: int = 0, seed: int = PHANTOM_SEED) -> Request:
    """A phantom CT in int16 as .nii, whose slices are repeated where there are more than are drawn; or a picture.

    side: in pixels; 0 as published
    """
    prompts = list(PROMPTS[:n_prompts])
    if len(prompts) < n_prompts:
        raise SystemExit(f"there are {len(prompts)} sentences; ask for at most as many prompts")
    side = side or SIDES[model]
    if model == "medimageparse":
        random = np.random.default_rng(seed)
        picture = np.clip(blobs(side, 3, random).transpose(1, 2, 0) + random.integers(-8, 8, (side, side, 3)), 0, 255)
        picture = np.ascontiguousarray(picture.astype(np.uint8))
        return Request(model, f"random picture of {side} x {side}", encode_image(picture).data, prompts, picture)
    phantom = make_phantom(seed, "CT", (min(n_slices, DRAWN_SLICES), side, side))
    repeated = np.arange(n_slices) % DRAWN_SLICES
    file = nib.Nifti1Image(phantom.intensities[..., repeated], phantom.affine).to_bytes()
    return Request(model, f"phantom CT seed {seed}, int16", file, prompts, windowed(phantom)[repeated])


def measure(server: TritonServer, request: Request, n: int, at_once: int = 1, protocol: str = "grpc") -> list[Round]:
    """n rounds of the same request, so many at once."""
    rounds, root = [], psutil.Process(server.process.pid)

    def send(_: int) -> float:
        started = time.perf_counter()
        request.send(server, protocol)
        return time.perf_counter() - started

    with ThreadPoolExecutor(at_once) as pool:
        for _ in range(n):
            before, used, started = statistics(server), cpu_seconds(root), time.perf_counter()
            seconds = list(pool.map(send, range(at_once)))
            wall_s, cpu_s = time.perf_counter() - started, cpu_seconds(root) - used
            rounds.append(Round(seconds, wall_s, cpu_s, spent_between(before, statistics(server))))
    return rounds


@contextmanager
def serving(work: Path, setting: Setting, change: Callable[[Path], None] | None = None) -> Iterator[TritonServer]:
    """A server on a copy of the model repository with the setting's graphs and parameters, changed before it starts."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        repository = demo_repository(Path(folder) / "model_repository", setting.graphs)
        pipeline = repository / "medimageparse_3d" / "config.pbtxt"
        configure(pipeline, window_size=setting.window_size, windows_in_flight=setting.windows_in_flight)
        for network in networks(variant_of(setting.graphs, setting.model)):
            config = repository / network / "configs" / f"{setting.runtime}.pbtxt"
            if '"onnxruntime_model.py"' in config.read_text():
                configure(config, providers=setting.providers)
            configure(config, threads=setting.threads)
            config.write_text(re.sub(r"\bcount: \d+", f"count: {setting.instances}", config.read_text()))
        if change:
            change(repository)
        with TritonServer(repository, setting.runtime, (setting.model,)) as server:
            yield server


def configure(config: Path, **parameters: object) -> None:
    """Gives parameters of a config.pbtxt other values."""
    for key, value in parameters.items():
        pattern = rf'(key: "{key}" value {{ string_value: )"[^"]*"'
        text, n_found = re.subn(pattern, rf'\g<1>"{value}"', config.read_text())
        if n_found != 1:
            raise ValueError(f"a configuration has no parameter {key}")
        config.write_text(text)


def statistics(server: TritonServer) -> Nanoseconds:
    """Of every model so far, by the server's own count."""
    options = channel_options(server.grpc_url)  # goes past proxies
    with tritonclient.grpc.InferenceServerClient(server.grpc_url, channel_args=options) as triton:
        models = triton.get_inference_statistics(headers=server.admin_headers, as_json=True)["model_stats"]
    kinds = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    return {m["name"]: {kind: float(m["inference_stats"].get(kind, {}).get("ns", 0)) for kind in kinds} for m in models}


def spent_between(before: Nanoseconds, after: Nanoseconds) -> Nanoseconds:
    return {model: {kind: ns - before[model][kind] for kind, ns in kinds.items()} for model, kinds in after.items()}
