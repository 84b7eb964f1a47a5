"""Where the time of one request goes: every step of a served model, waiting and copies; report.py draws it.

From Triton's statistics before and after the request, the report, and the same graphs run on the same windows by ONNX
Runtime in this program, where nothing is copied between processes. Windows go through one at a time unless
--windows-in-flight says otherwise: then encoder and decoder overlap, and their times add up to more than the request's.
An image is a window of its own.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnx.utils
import served
import torch
from medimageparse.served_tensors import networks
from medimageparse.variants import Variant
from processes import OtherLoad
from recording import Row, conditions, find_graphs, graph_of, median, parser_of, record, results_of, variant_of
from techniques import names_of, onnx_run, openvino_run

MODELS = {"3d": "medimageparse_3d", "2d": "medimageparse"}
WINDOWS, MERGING = "windows", "merging"
WARM_UP = 2  # requests: each process of the public model takes its shared memory in its first


def stages_of(variant: Variant, spent: served.Nanoseconds, wall_ms: float, direct: Row) -> dict[str, float]:
    """Milliseconds of every stage; with one window in flight they add up to the wall time.

    What a network takes beyond its direct run is the way to its process and back: copies.
    """
    total, queue = ({model: kinds[kind] / 1e6 for model, kinds in spent.items()} for kind in ("success", "queue"))
    model, called = variant.model, served.CALLED[variant.model]
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

    def __init__(self, variant: Variant, setting: served.Setting, request: served.Request) -> None:
        self.networks, self.windows = networks(variant), request.windows
        self.text, self.image, self.masks = self.networks
        files = {name: graph_of(setting.graphs, name) for name in self.networks}
        inputs, outputs = names_of(self.networks[self.masks])
        # of the 3D mask decoder the pipeline asks for what it merges into labels
        asked = [name for name in ("label_slices", "scores") if name in outputs]
        self.outputs = {name: names_of(network)[1] for name, network in self.networks.items()}
        self.outputs |= {self.masks: asked or outputs, MERGING: outputs[len(asked) :]}
        self.inputs = {name: names_of(network)[0] for name, network in self.networks.items()} | {MERGING: inputs}
        self.runs = {name: onnx_run(file, self.inputs[name], self.outputs[name], "cpu") for name, file in files.items()}
        if asked:
            whole = onnx.load(files[self.masks])
            unmerged = onnx.utils.Extractor(whole).extract_model(inputs, self.outputs[MERGING]).SerializeToString()
            self.runs[MERGING] = onnx_run(unmerged, inputs, self.outputs[MERGING], "cpu")
        if setting.runtime == "cpu-bf16":
            self.runs[self.image] = openvino_run(files[self.image], self.outputs[self.image])
        input_ids, attention_mask, *_ = served.tokenize(request.prompts)
        together = np.arange(len(request.prompts))[None]
        known = {"input_ids": input_ids, "attention_mask": attention_mask, "prompt_groups": together}
        known["noise_fields"] = np.zeros(len(request.prompts), np.int64)
        self.known = {name: torch.from_numpy(array) for name, array in known.items()}

    def timed(self, name: str, known: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
        """Milliseconds of a network, and its outputs by name."""
        started = time.perf_counter()
        found = list(self.runs[name]([known[tensor] for tensor in self.inputs[name]]))
        return 1000 * (time.perf_counter() - started), dict(zip(self.outputs[name], found, strict=True))

    def run(self) -> dict[str, float]:
        """Merging is what the mask decoder takes longer than a graph of it that ends before."""
        spent, started = dict.fromkeys((WINDOWS, *self.runs), 0.0), time.perf_counter()
        windows = self.windows()
        spent[WINDOWS] = 1000 * (time.perf_counter() - started)
        spent[self.text], text = self.timed(self.text, self.known)
        for window in windows:
            known = self.known | text | {name: torch.from_numpy(array) for name, array in window.items()}
            ms, features = self.timed(self.image, known)
            masks_ms, _ = self.timed(self.masks, known | features)
            spent[self.image] += ms
            spent[self.masks] += masks_ms
            if MERGING in self.runs:
                spent[MERGING] += max(0.0, masks_ms - self.timed(MERGING, known | features)[0])
        return spent


def measure(setting: served.Setting, request: served.Request, options: argparse.Namespace) -> Iterator[tuple[Row, Row]]:
    """For each protocol the wall time, the stages and the networks' direct run: medians over the requests."""
    variant = variant_of(setting.graphs, setting.model)
    with served.serving(options.work, setting) as server:
        direct_run = DirectRun(variant, setting, request)
        for protocol in options.protocols:
            for _ in range(WARM_UP):
                request.send(server, protocol)
            direct_run.run()
            others, walls, directs, stages = OtherLoad(server.process.pid), [], [], []
            for _ in range(options.requests):
                before, started = served.statistics(server), time.perf_counter()
                request.send(server, protocol)
                walls.append(1000 * (time.perf_counter() - started))
                spent = served.spent_between(before, served.statistics(server))
                directs.append(direct_run.run())
                stages.append(stages_of(variant, spent, walls[-1], directs[-1]))
            networks_ms = [sum(direct[name] for name in networks(variant)) for direct in directs]
            ratios = [wall / direct for wall, direct in zip(walls, networks_ms, strict=True)]
            row = {"protocol": protocol, "others_share": others.share(), "wall_ms": median(walls)}
            row |= {"networks_direct_ms": median(networks_ms), "times_direct": median(ratios)}
            yield row, {name: median([of_one[name] for of_one in stages]) for name in stages[0]}


def rows(model: str, options: argparse.Namespace) -> Iterator[Row]:
    """The rows of one public model."""
    setting = served.Setting(find_graphs(model, options), model, 1, options.prompts_2d, 1, 1, runtime=options.runtime)
    if model == "medimageparse_3d":
        sizes = {name: getattr(options, name) for name in ("slices", "prompts", "window_size", "windows_in_flight")}
        setting = replace(setting, **sizes)
    variant, request, here = variant_of(setting.graphs, model), served.make_request(setting), conditions()
    sizes = {name: getattr(setting, name) for name in ("slices", "prompts", "window_size", "windows_in_flight")}
    here |= {"variant": variant.name, "runtime": options.runtime, "precision": served.precision_of(setting)}
    here |= {"volume": request.source, **sizes, "requests": options.requests}
    for measured, stages in measure(setting, request, options):
        title = f"{variant.name}, {setting.slices} slices, {setting.prompts} prompts, {measured['protocol']}"
        print(f"{title}: {measured['wall_ms']:.1f} ms, {measured['times_direct']:.3f} times the networks alone")
        for stage, ms in stages.items():
            yield here | measured | {"stage": stage, "ms": ms, "share": ms / measured["wall_ms"]}


def summary(row: Row) -> str:
    return f"  {row['stage']:<30}{row['ms']:12.2f} ms {100 * row['share']:7.2f} %"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--runtime", choices=served.CPU_RUNTIMES, default="cpu")
    parser.add_argument("--protocols", nargs="+", choices=("grpc", "http"), default=["grpc", "http"])
    parser.add_argument("--slices", type=int, default=16, help="in 3D")
    parser.add_argument("--prompts", type=int, default=15, help="in 3D")
    parser.add_argument("--prompts-2d", type=int, default=1)
    parser.add_argument("--window-size", type=int, default=4, metavar="SLICES")
    parser.add_argument("--windows-in-flight", type=int, default=1, metavar="N", help="2 is what is served on a GPU")
    parser.add_argument("--requests", type=int, default=3, metavar="N", help="timed ones, after two more")
    options = parser.parse_args(arguments)
    results = results_of(options, "stages")
    for model in options.models:
        record(results, rows(MODELS[model], options), summary)


if __name__ == "__main__":
    main()
