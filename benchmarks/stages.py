"""Where the time of one request goes: every step of a served model, waiting and copies; report.py draws it.

From Triton's statistics before and after the request, the report, and the same graphs run on the same windows by ONNX
Runtime in this program, where nothing is copied between processes. Windows go through one at a time unless
--windows-in-flight says otherwise: then encoder and decoder overlap, and their times add up to more than the request's.
An image is a window of its own.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from direct import Run, asked_and_not, onnx_run, openvino_run
from inputs import endless_case, random_picture
from medimageparse.served_tensors import networks
from medimageparse.variants import VARIANTS, Variant
from medimageparse_client.image import encode_image
from medimageparse_client.volume import encode_volume
from processes import OtherLoad
from recording import RESULTS, append_row, conditions, median
from served import (
    CALLED,
    CPU_RUNTIMES,
    PRECISIONS,
    TIMEOUT_S,
    VARIANT_SUFFIXES,
    WORK,
    Setting,
    TritonServer,
    random_graphs,
    serving,
    variant_of,
)

from pixels import to_pixels  # isort: skip  the server's own; served.py has put its folders on the path
from sliding_window import iterate_windows  # isort: skip
from clip_tokenizer import tokenize  # isort: skip

MODELS = {"3d": "medimageparse_3d", "2d": "medimageparse"}
WINDOWS, MERGING = "windows", "merging"
WARM_UP = 2  # requests: each process of the public model takes its shared memory in its first
PACKAGES = ("onnxruntime", "openvino", "numpy", "nvidia-pytriton")
Nanoseconds = dict[str, dict[str, float]]  # model -> success, queue, compute_input, compute_infer, compute_output


# what a client sends beside image and text, and what it asks for
OPTIONS = {"medimageparse_3d": {"output": b"nifti_file"}, "medimageparse": {}}
ANSWERS = {
    "medimageparse_3d": ("nifti_file", "scores", "report"),
    "medimageparse": ("image_features", "text_features", "report"),
}


@dataclass(frozen=True)
class Request:
    """file: as it is sent; windows: a function that makes what the image encoder gets, all that the request has."""

    source: str
    file: bytes
    prompts: list[str]
    windows: Callable[[], list[np.ndarray]]


def make_request(variant: Variant, setting: Setting) -> Request:
    case = endless_case(setting.slices, setting.prompts)
    if variant.model == "medimageparse_3d":
        slices = np.ascontiguousarray(np.asarray(case.volume.dataobj).transpose(2, 1, 0))
        in_windows = (slices, setting.window_size, variant.image_size)
        return Request(
            case.source,
            encode_volume(case.volume),
            case.prompts,
            lambda: [window for _, window in iterate_windows(*in_windows)],
        )
    picture = random_picture()
    source = f"random picture of {len(picture)} x {len(picture)}"
    return Request(source, encode_image(picture).data, case.prompts, lambda: [to_pixels(picture, variant.image_size)])


def statistics(server: TritonServer) -> Nanoseconds:
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as triton:
        models = triton.get_inference_statistics(headers=server.admin_headers, as_json=True)["model_stats"]
    kinds = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    return {m["name"]: {kind: float(m["inference_stats"].get(kind, {}).get("ns", 0)) for kind in kinds} for m in models}


def sender(server: TritonServer, model: str, protocol: str, request: Request) -> Callable[[], float]:
    """Sends the request; returns its seconds until the answer is there."""
    triton = tritonclient.grpc if protocol == "grpc" else tritonclient.http
    url = server.grpc_url if protocol == "grpc" else server.http_url
    timeout = {} if protocol == "grpc" else {"connection_timeout": TIMEOUT_S, "network_timeout": TIMEOUT_S}
    sent = {"image": request.file, "text": "&".join(request.prompts).encode(), **OPTIONS[model]}

    def send() -> float:
        with triton.InferenceServerClient(url, **timeout) as client:
            started = time.perf_counter()
            inputs = []
            for name, value in sent.items():
                inputs.append(triton.InferInput(name, [1], "BYTES"))
                inputs[-1].set_data_from_numpy(np.array([value], np.object_))
            outputs = [triton.InferRequestedOutput(name) for name in ANSWERS[model]]
            client.infer(model, inputs, outputs=outputs)
            return time.perf_counter() - started

    return send


def stages_of(variant: Variant, spent: Nanoseconds, wall_ms: float, direct: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds of every stage; with one window in flight they add up to the wall time.

    What a network takes beyond its direct run is the way to its process and back: copies.
    """
    total, queue = ({model: kinds[kind] / 1e6 for model, kinds in spent.items()} for kind in ("success", "queue"))
    model, called = variant.model, CALLED[variant.model]
    decode, tokenize_prompts, _, window, encode = called
    text, image, masks = of_networks = tuple(networks(variant))
    between = total[model] - queue[model] - sum(total[name] for name in called)
    merging = {"merging": direct[MERGING]} if MERGING in direct else {}
    return {
        "outside the server": wall_ms - total[model],
        "decode the image": total[decode] - queue[decode],
        "tokenize": total[tokenize_prompts] - queue[tokenize_prompts],
        "text encoder": direct[text],
        "make windows": direct[WINDOWS],
        "image encoder": direct[image],
        "mask decoder": direct[masks] - sum(merging.values()),
        **merging,
        "copies to networks and back": sum(total[name] - queue[name] - direct[name] for name in of_networks),
        "calls between the steps": between - direct[WINDOWS] + total[window] - total[image] - total[masks],
        "encode the result": total[encode] - queue[encode],
        "waiting in queues": sum(queue[name] for name in (model, decode, tokenize_prompts, *of_networks, encode)),
    }


class DirectRun:
    """Windows and the three graphs in this program: milliseconds of each for the same request."""

    def __init__(self, variant: Variant, setting: Setting, request: Request) -> None:
        self.networks, self.windows = networks(variant), request.windows
        self.text, self.image, self.masks = self.networks
        files = {name: setting.graphs / name / "1" / "model.onnx" for name in self.networks}
        self.graphs = {name: onnx_run(file, setting.threads) for name, file in files.items()}
        self.from_masks, self.before_merging = asked_and_not(self.networks[self.masks])
        if self.before_merging:
            self.unmerged = onnx_run(files[self.masks], setting.threads, only=self.before_merging)
        if setting.runtime == "cpu-bf16":
            self.graphs[self.image] = openvino_run(files[self.image], setting.threads)
        input_ids, attention_mask, *_ = tokenize(request.prompts)
        together = np.arange(len(request.prompts))[None]
        self.known = {"input_ids": input_ids, "attention_mask": attention_mask, "prompt_groups": together}

    def timed(
        self, name: str, known: Mapping[str, np.ndarray], outputs: Sequence[str] = (), run: Run | None = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """Milliseconds of a network, and its outputs by name, all if none is named; run: another graph of it."""
        arrays = [known[spec.name] for spec in self.networks[name].inputs]
        wanted = outputs or [spec.name for spec in self.networks[name].outputs]
        started = time.perf_counter()
        found = (run or self.graphs[name])(arrays, wanted)
        return 1000 * (time.perf_counter() - started), dict(zip(wanted, found, strict=True))

    def run(self) -> dict[str, float]:
        """Merging is what the mask decoder takes longer than a graph of it that ends before."""
        parts = (WINDOWS, *self.networks, *([MERGING] if self.before_merging else []))
        spent = dict.fromkeys(parts, 0.0)
        started = time.perf_counter()
        windows = self.windows()
        spent[WINDOWS] = 1000 * (time.perf_counter() - started)
        spent[self.text], text = self.timed(self.text, self.known)
        [window_tensor] = self.networks[self.image].inputs
        for window in windows:
            ms, features = self.timed(self.image, {window_tensor.name: window})
            spent[self.image] += ms
            known = self.known | text | features
            all_ms, _ = self.timed(self.masks, known, self.from_masks)
            spent[self.masks] += all_ms
            if self.before_merging:
                without_ms, _ = self.timed(self.masks, known, self.before_merging, self.unmerged)
                spent[MERGING] += max(0.0, all_ms - without_ms)
        return spent


def measure(
    variant: Variant, setting: Setting, request: Request, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """For each protocol the wall time, the stages and the networks' direct run: medians over the requests."""
    with serving(options.work, setting) as server:
        assert server.process is not None
        direct_run = DirectRun(variant, setting, request)
        for protocol in options.protocols:
            send = sender(server, variant.model, protocol, request)
            for _ in range(WARM_UP):
                send()
            direct_run.run()
            others, walls, directs, stages = OtherLoad(server.process.pid), [], [], []
            for _ in range(options.requests):
                before = statistics(server)
                walls.append(1000 * send())
                after = statistics(server)
                spent = {
                    model: {k: after[model][k] - before[model][k] for k in kinds} for model, kinds in after.items()
                }
                directs.append(direct_run.run())
                stages.append(stages_of(variant, spent, walls[-1], directs[-1]))
            networks_ms = [sum(direct[name] for name in networks(variant)) for direct in directs]
            yield {
                "protocol": protocol,
                "others_share": others.share(),
                "wall_ms": median(walls),
                "networks_direct_ms": median(networks_ms),
                "times_direct": median([wall / direct for wall, direct in zip(walls, networks_ms, strict=True)]),
                "stages": {name: median([of_one[name] for of_one in stages]) for name in stages[0]},
            }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="for graphs and the served copy")
    parser.add_argument("--variant", default="PUBLISHED", help="DEMO or TINY try the script out")
    parser.add_argument(
        "--graphs", type=Path, nargs="+", default=[], metavar="DIR", help="serve these graphs, not random weights"
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--runtime", choices=CPU_RUNTIMES, default="cpu")
    parser.add_argument("--protocols", nargs="+", choices=("grpc", "http"), default=["grpc", "http"])
    parser.add_argument("--slices", type=int, default=16, help="in 3D")
    parser.add_argument("--prompts", type=int, default=15, help="in 3D")
    parser.add_argument("--prompts-2d", type=int, default=1)
    parser.add_argument("--window-size", type=int, default=4, metavar="SLICES")
    parser.add_argument("--windows-in-flight", type=int, default=1, metavar="N", help="2 is what is served on a GPU")
    parser.add_argument("--requests", type=int, default=3, metavar="N", help="timed ones, after two more")
    parser.add_argument("--results", type=Path, metavar="CSV", help="by default results/VARIANT/stages.csv")
    return parser.parse_args(arguments)


def measure_model(model: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of one public model."""
    graphs = find_graphs(model, options)
    variant = VARIANTS[variant_of(graphs)]
    of_3d = model == "medimageparse_3d"
    setting = Setting(
        graphs,
        "CPUExecutionProvider",
        slices=options.slices if of_3d else 1,
        prompts=options.prompts if of_3d else options.prompts_2d,
        window_size=options.window_size if of_3d else 1,
        windows_in_flight=options.windows_in_flight if of_3d else 1,
        runtime=options.runtime,
    )
    request, here = make_request(variant, setting), conditions(PACKAGES)
    for measured in measure(variant, setting, request, options):
        stages, wall_ms = measured.pop("stages"), measured["wall_ms"]
        title = f"{variant.name}, {setting.slices} slices, {setting.prompts} prompts, {measured['protocol']}"
        print(f"{title}: {wall_ms:.1f} ms, {measured['times_direct']:.3f} times the networks alone")
        for stage, ms in stages.items():
            print(f"  {stage:<30}{ms:12.2f} ms {100 * ms / wall_ms:7.2f} %")
            yield here | {
                "variant": variant.name,
                "runtime": options.runtime,
                "precision": PRECISIONS[options.runtime],
                "volume": request.source,
                "slices": setting.slices,
                "prompts": setting.prompts,
                "window_size": setting.window_size,
                "windows_in_flight": setting.windows_in_flight,
                "requests": options.requests,
                **measured,
                "stage": stage,
                "ms": ms,
                "share": ms / wall_ms,
            }


def find_graphs(model: str, options: argparse.Namespace) -> Path:
    """The folder of --graphs with this model; random weights where none is named."""
    for folder in options.graphs:
        if VARIANTS[variant_of(folder)].model == model:
            return folder
    if options.graphs:
        raise SystemExit(f"no folder of --graphs has {model}; leave it out of --models")
    return random_graphs(options.work, options.variant + VARIANT_SUFFIXES[model], "fp32")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    results = options.results or RESULTS / options.variant / "stages.csv"
    for model in options.models:
        for row in measure_model(MODELS[model], options):
            append_row(results, row)


if __name__ == "__main__":
    main()
