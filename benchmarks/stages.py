"""Where the time of one request goes: every step of a served model, waiting and copies; report.py draws it.

From Triton's statistics before and after the request, the report, and the same graphs run on the same windows by ONNX
Runtime in this program, where nothing is copied between processes. Windows go through one at a time unless
--windows-in-flight says otherwise: then encoder and decoder overlap, and their times add up to more than the request's.
An image is a window of its own.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import served
import torch
from medimageparse.served_tensors import networks
from medimageparse.variants import Variant
from medimageparse_serving.image.pixels import to_pixels
from medimageparse_serving.volume.sliding_window import by_digits, iterate_windows
from processes import OtherLoad
from recording import Row, conditions, find_graphs, graph_of, median, parser_of, record, results_of, variant_of
from runtimes import Run, now, onnx_run, openvino_run

MODELS = {"3d": "medimageparse_3d", "2d": "medimageparse"}
WINDOWS = "windows"
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
    return {
        "outside the server": wall_ms - total[model],
        "decode the image": total[decode] - queue[decode],
        "tokenize": total[tokenize_prompts] - queue[tokenize_prompts],
        "text encoder": direct[text],
        "make windows": direct[WINDOWS],
        "image encoder": direct[image],
        "mask decoder": direct[masks],
        "copies to networks and back": sum(total[name] - queue[name] - direct[name] for name in of_networks),
        "calls between the steps": between - direct[WINDOWS] + total[window] - total[image] - total[masks],
        "encode the result": total[encode] - queue[encode],
        "waiting in queues": sum(queue[name] for name in (model, decode, tokenize_prompts, *of_networks, encode)),
    }


def direct_ms(runs: dict[str, Run], setting: served.Setting, request: served.Request) -> dict[str, float]:
    """Milliseconds of the windows and of each network for the same request, run in this program one after the other."""
    spent: Counter[str] = Counter()

    def timed(name: str, work: Callable[..., Any], *inputs: Any) -> Any:
        started = now()
        found = work(*inputs)
        spent[name] += 1000 * (now() - started)
        return found

    text, image, masks = runs
    input_ids, attention_mask, *_ = served.tokenize(request.prompts)
    known = {"input_ids": input_ids, "attention_mask": attention_mask}
    known |= {"prompt_groups": np.arange(setting.prompts)[None], "noise_fields": np.zeros(setting.prompts, np.int64)}
    known = {name: torch.from_numpy(array) for name, array in known.items()}
    known |= timed(text, runs[text], known)
    for window in timed(WINDOWS, windows_of, setting, request):
        found = known | {name: torch.from_numpy(array) for name, array in window.items()}
        found |= timed(image, runs[image], found)
        timed(masks, runs[masks], found)
    return spent


def windows_of(setting: served.Setting, request: served.Request) -> list[dict[str, np.ndarray]]:
    """What the image encoder gets, all that the request has."""
    size = variant_of(setting.graphs, setting.model).image_size
    if setting.model == "medimageparse":
        return [{"pixels": to_pixels(request.shown, size)}]
    return [by_digits(window) for _, window in iterate_windows(request.shown, setting.window_size, size)]


def direct_runs(setting: served.Setting) -> dict[str, Run]:
    """The three networks in this program, by name."""
    known = networks(variant_of(setting.graphs, setting.model))
    runs = {name: onnx_run(graph_of(setting.graphs, name)) for name in known}
    if setting.runtime == "cpu-bf16":
        image = list(known)[1]
        runs[image] = openvino_run(graph_of(setting.graphs, image), known[image])
    return runs


def measure(setting: served.Setting, request: served.Request, options: argparse.Namespace) -> Iterator[tuple[Row, Row]]:
    """For each protocol the wall time, the stages and the networks' direct run: medians over the requests."""
    variant, runs = variant_of(setting.graphs, setting.model), direct_runs(setting)
    with served.serving(options.work, setting) as server:
        for protocol in options.protocols:
            served.measure(server, request, WARM_UP, protocol=protocol)
            direct_ms(runs, setting, request)
            others, walls, alone, stages = OtherLoad(server.process.pid), [], [], []
            for _ in range(options.requests):
                (of_one,) = served.measure(server, request, 1, protocol=protocol)
                direct = direct_ms(runs, setting, request)
                walls.append(1000 * of_one.wall_s)
                alone.append(sum(direct[name] for name in runs))
                stages.append(stages_of(variant, of_one.spent, walls[-1], direct))
            row = {"protocol": protocol, "others_share": others.share(), "wall_ms": median(walls)}
            row |= {"networks_direct_ms": median(alone)}
            row |= {"times_direct": median([wall / direct for wall, direct in zip(walls, alone, strict=True)])}
            yield row, {name: median([of_one[name] for of_one in stages]) for name in stages[0]}


def rows(model: str, options: argparse.Namespace) -> Iterator[Row]:
    """The rows of one public model."""
    of_image = {"slices": 1, "prompts": options.prompts_2d, "window_size": 1, "windows_in_flight": 1}
    sizes = of_image if model == "medimageparse" else {name: getattr(options, name) for name in of_image}
    setting = served.Setting(find_graphs(model, options), model, **sizes, runtime=options.runtime)
    request, variant = served.make_request(model, setting.slices, setting.prompts), variant_of(setting.graphs, model)
    here = conditions() | {"variant": variant.name, "runtime": options.runtime}
    here |= {"precision": served.precision_of(setting), "volume": request.source, **sizes, "requests": options.requests}
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
