"""One volume after the other through a real tritonserver: what the served benchmarks share."""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tritonclient.grpc
from inputs import Case
from medimageparse.served_tensors import networks
from medimageparse.variants import VARIANTS
from medimageparse_client import Client, Segmentation
from medimageparse_demo.repository import demo_repository
from processes import OtherLoad, PeakMemory
from recording import median
from serve import TritonServer
from triton_installation import CPU_RUNTIMES

WORK = Path(__file__).with_name("work")  # ignored by git
SEED = 1  # of the random weights; with 0 a label of the published size hangs on the last bit
TIMEOUT_S = 3600.0
PRECISIONS = dict(zip(CPU_RUNTIMES, ("fp32", "image encoder bf16, rest fp32"), strict=True))
NETWORKS = ("text_encoder_3d", "image_encoder_3d", "mask_decoder_3d")
PYTHON_STEPS = ("decode_volume", "tokenize_prompts", "segment_volume", "encode_masks")
CALLED = {  # by each public model, in this order; the fourth is the ensemble of image encoder and mask decoder
    "medimageparse_3d": ("decode_volume", "tokenize_prompts", "text_encoder_3d", "segment_window_3d", "encode_masks"),
    "medimageparse": ("decode_image", "tokenize_prompts", "text_encoder", "segment_pixels", "encode_probabilities"),
}
VARIANT_SUFFIXES = {"medimageparse_3d": "", "medimageparse": "_2D"}  # the same sizes in 3D and 2D
PROCESSES = ("tritonserver", "decode_volume", "tokenize_prompts", "medimageparse_3d", "encode_masks", *NETWORKS)


@dataclass(frozen=True)
class Setting:
    """What is varied from row to row; graphs: a folder as `python -m medimageparse export --repository` fills it.

    threads: of each network, 0 for one a core; instances: of each network; runtime: one of CPU_RUNTIMES
    """

    graphs: Path
    providers: str
    slices: int
    prompts: int
    window_size: int
    windows_in_flight: int = 0  # as served
    threads: int = 0
    instances: int = 1
    runtime: str = "cpu"


@dataclass(frozen=True)
class Measured:
    """Seconds of the first request and of each later one, and peak memory.

    networks: what was served, by the server's own report
    others: share of the cores that other programs used meanwhile
    step_ms: median milliseconds of a later request in each python step and network
    """

    server: str
    networks: dict[str, Any]
    first_s: float
    later_s: list[float]
    others: float
    step_ms: dict[str, float]
    memory: PeakMemory


def random_graphs(work: Path, variant: str, precision: str, seed: int = SEED) -> Path:
    """Graphs of random weights; they are exported once and kept in `work`: delete the folder to export again."""
    graphs = work / (f"graphs-{variant}-{precision}" + (f"-seed-{seed}" if seed != SEED else ""))
    if not (graphs / VARIANTS[variant].model / "1" / "networks.json").exists():
        command = [sys.executable, "-m", "medimageparse", "export", "--random-weights", str(seed)]
        command += ["--variant", variant, "--precision", precision, "--repository", str(graphs)]
        subprocess.run(command, check=True)
    return graphs


def variant_of(graphs: Path) -> str:
    """The sizes of exported graphs of one public model."""
    [description] = graphs.glob("*/1/networks.json")
    return json.loads(description.read_text())["variant"]


@contextmanager
def serving(work: Path, setting: Setting) -> Iterator[TritonServer]:
    """A server on a copy of the model repository with the setting's graphs and parameters."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        repository = demo_repository(Path(folder) / "model_repository", setting.graphs)
        for name in ("window_size", "windows_in_flight"):
            set_parameter(repository / "medimageparse_3d" / "config.pbtxt", name, str(getattr(setting, name)))
        for network in networks(VARIANTS[variant_of(setting.graphs)]):
            config = repository / network / "configs" / f"{setting.runtime}.pbtxt"
            if '"onnxruntime_model.py"' in config.read_text():
                set_parameter(config, "providers", setting.providers)
            set_parameter(config, "threads", str(setting.threads))
            set_instances(config, setting.instances)
        with TritonServer(repository, setting.runtime) as server:
            yield server


def set_parameter(config: Path, key: str, value: str) -> None:
    """Gives a parameter of a config.pbtxt another value."""
    pattern = rf'(key: "{key}" value {{ string_value: )"[^"]*"'
    text, n_found = re.subn(pattern, rf'\g<1>"{value}"', config.read_text())
    if n_found != 1:
        raise ValueError(f"a configuration has no parameter {key}")
    config.write_text(text)


def set_instances(config: Path, count: int) -> None:
    """Gives the only instance group of a config.pbtxt another size."""
    text, n_found = re.subn(r"\bcount: \d+", f"count: {count}", config.read_text())
    if n_found != 1:
        raise ValueError("a configuration has not one instance group")
    config.write_text(text)


def measure(server: TritonServer, case: Case, setting: Setting, repeats: int) -> Measured:
    """The same request a few times, one at a time; the first is kept apart: the server then takes its memory."""
    assert server.process is not None
    prompts = case.prompts[: setting.prompts]
    if len(prompts) < setting.prompts:
        raise ValueError(f"there are {len(prompts)} sentences; ask for at most as many prompts")
    later_s, milliseconds = [], []
    with Client(server.grpc_url, timeout_s=TIMEOUT_S) as client, PeakMemory(server.process.pid) as memory:
        name = client.health().server
        first_s, result = timed(client, case, prompts)
        others = OtherLoad(server.process.pid)
        for _ in range(repeats):
            before = compute_ms(server)
            seconds, result = timed(client, case, prompts)
            later_s.append(seconds)
            milliseconds.append(result.report["milliseconds"] | spent(before, compute_ms(server)))
        others_share = others.share()
    step_ms = {step: median([ms[step] for ms in milliseconds]) for step in (*PYTHON_STEPS, *NETWORKS)}
    return Measured(name, result.report["networks"], first_s, later_s, others_share, step_ms, memory)


def timed(client: Client, case: Case, prompts: list[str]) -> tuple[float, Segmentation]:
    """Seconds of one request, and its result."""
    started = time.perf_counter()
    result = client.segment(case.volume, prompts)
    return time.perf_counter() - started, result


def spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {network: after[network] - before[network] for network in NETWORKS}


def compute_ms(server: TritonServer) -> dict[str, float]:
    """Milliseconds that each network has computed so far, by the server's own statistics."""
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as triton:
        statistics = triton.get_inference_statistics(headers=server.admin_headers).model_stats
    return {model.name: model.inference_stats.compute_infer.ns / 1e6 for model in statistics}


def columns(setting: Setting, case: Case, measured: Measured) -> dict[str, object]:
    """Setting and numbers of one row; per_slice is the median of the later requests over the number of slices."""
    memory, seconds = measured.memory, median(measured.later_s)
    return {
        "server": measured.server,
        "runtime": setting.runtime,
        "providers": setting.providers,
        "variant": measured.networks["variant"],
        "weights": measured.networks["checkpoint_sha256"],
        "precision": measured.networks["precision"],
        "volume": case.source,
        "shape": "x".join(map(str, case.volume.shape)),
        "prompts": setting.prompts,
        "window_size": setting.window_size,
        "requests": len(measured.later_s),
        "others_share": measured.others,
        "first_request_s": measured.first_s,
        "median_s": seconds,
        "slowest_s": max(measured.later_s),
        "per_slice_s": seconds / setting.slices,
        **{f"{step}_ms": measured.step_ms[step] for step in (*PYTHON_STEPS, *NETWORKS)},
        "peak_pss_gb": "" if memory.peak_pss is None else memory.peak_pss / 1e9,
        "peak_rss_sum_gb": memory.peak_rss / 1e9,
        **{f"rss_{name}_gb": memory.of_process.get(name, 0) / 1e9 for name in PROCESSES},
    }


def summary(row: dict[str, object]) -> str:
    """The numbers of a row for the terminal."""
    names = ["others_share", "per_slice_s", "median_s", "first_request_s", "peak_pss_gb", "peak_rss_sum_gb"]
    names += [f"{step}_ms" for step in (*PYTHON_STEPS, *NETWORKS)] + [f"rss_{name}_gb" for name in PROCESSES]
    lines = [f"{row['volume']}, {row['shape']}, {row['prompts']} prompts, window of {row['window_size']} slices"]
    lines += [f"  {name:<28} {row[name]:10.3f}" for name in names if row[name] != ""]
    return "\n".join(lines)
