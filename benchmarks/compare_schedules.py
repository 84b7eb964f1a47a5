"""The networks alone, by part: the originals' schedule against ours in PyTorch, ONNX Runtime and OpenVINO, in one run.

Each round runs every way once, one after the other, so that a change of the machine's speed meets all of them;
`times_original` is the median over the rounds of this way's seconds over the original's. Weights are random and the
same for all; the warm-up gives all the same noise and compares what comes out.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import original_schedule as original
import torch
from direct import Run, asked_and_not, onnx_run, openvino_run
from gpu_networks import mask_iou
from inputs import SENTENCES, random_picture
from medimageparse.class_embeddings import class_token_ids
from medimageparse.comparison import blobs
from medimageparse.networks import build_random
from medimageparse.served_tensors import CLASSES, Network, networks
from medimageparse.variants import PUBLISHED, VARIANTS, Variant
from processes import OtherLoad
from recording import RESULTS, append_row, conditions, median
from serve import has_bf16
from served import SEED, WORK, random_graphs
from torch import Tensor, nn

from clip_tokenizer import tokenize  # isort: skip  the server's; class_embeddings knows where it lies

ORIGINAL, BF16 = "original", "ours, image encoder in bf16"
TEXT, IMAGE, MASKS, ALL = "text encoder", "image encoder", "mask decoder", "all"
EXTRA_PROMPT, CLASS_NAMES = "each extra prompt", "class names, once per request"
NOT_COMPARED = {"label_agreement": "", "mask_iou": ""}
THIS_PROGRAM = -1  # no session has this number: what is not this program counts as others
PACKAGES = ("torch", "onnxruntime", "openvino", "onnx", "numpy")


@dataclass(frozen=True)
class Request:
    """image: a window of slices [S + 2, H, W], or pixels [1, H, W, 3]; prompts: input_ids and attention_mask [P, T]."""

    image: Tensor
    prompts: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Way:
    """A way to run the networks. encode_image, encode_text: -> features; decode: request and features -> results.

    The first result is compared: labels of every pixel in 3D, mask logits in 2D.
    """

    runtime: str
    encode_image: Callable[[Tensor], tuple]
    encode_text: Callable[[Tensor, Tensor], tuple]
    decode: Callable[[Request, tuple, tuple], tuple]


def original_3d(modules: Mapping[str, nn.Module], noise: Sequence[Tensor] | None = None) -> Way:
    masks = modules["mask_decoder_3d"]

    def decode(request: Request, features: tuple, text: tuple) -> tuple:
        mask_logits, _, existence = original.masks_3d(masks, features, *text, noise)
        return original.merge_3d(mask_logits, existence, request.image.shape[-1])

    return Way(
        "PyTorch",
        lambda window: original.image_3d(modules["image_encoder_3d"], masks.mask_decoder.mask_features, window),
        lambda *prompts: (original.text_3d(modules["text_encoder_3d"], *prompts),),
        decode,
    )


def original_2d(modules: Mapping[str, nn.Module]) -> Way:
    masks = modules["mask_decoder"]
    return Way(
        "PyTorch",
        lambda pixels: original.image_2d(modules["image_encoder"], masks.mask_decoder.mask_features, pixels),
        lambda *prompts: original.text_2d(modules["text_encoder"], *prompts),
        lambda request, features, text: original.masks_2d(masks, features, *text),
    )


def ours(runtime: str, run: Mapping[str, Callable[..., tuple]], model: str) -> Way:
    """Our networks; run: by name, tensors in and out."""
    if model == "medimageparse_3d":
        return Way(
            runtime,
            run["image_encoder_3d"],
            run["text_encoder_3d"],
            lambda request, features, text: run["mask_decoder_3d"](*features, *text),
        )

    def decode(request: Request, features: tuple, text: tuple) -> tuple:
        tokens, of_prompts = text
        joint = torch.arange(len(of_prompts))[None]
        return run["mask_decoder"](*features, tokens, request.prompts[1], of_prompts, joint)

    return Way(runtime, run["image_encoder"], run["text_encoder"], decode)


def as_tuple(module: nn.Module) -> Callable[..., tuple]:
    def run(*inputs: Tensor) -> tuple:
        outputs = module(*inputs)
        return (outputs,) if isinstance(outputs, Tensor) else outputs

    return run


def with_tensors(run: Run, network: Network) -> Callable[..., tuple]:
    """A graph as it is served: of the 3D mask decoder only what the pipeline asks for is copied out."""
    asked, _ = asked_and_not(network)
    return lambda *tensors: tuple(torch.from_numpy(array) for array in run([t.numpy() for t in tensors], asked))


def ways_of(variant: Variant, modules: Mapping[str, nn.Module], graphs: Path, threads: int) -> dict[str, Way]:
    first = original_3d(modules) if variant.model == "medimageparse_3d" else original_2d(modules)
    files = {name: graphs / name / "1" / "model.onnx" for name in modules}
    table = networks(variant)
    sessions = {name: with_tensors(onnx_run(file, threads), table[name]) for name, file in files.items()}
    ways = {
        ORIGINAL: first,
        "ours, PyTorch": ours("PyTorch", {name: as_tuple(m) for name, m in modules.items()}, variant.model),
        "ours, ONNX Runtime": ours("ONNX Runtime", sessions, variant.model),
    }
    if has_bf16():
        [name] = (name for name in files if name.startswith("image_encoder"))
        sessions = sessions | {name: with_tensors(openvino_run(files[name], threads), table[name])}
        ways[BF16] = ours("OpenVINO, ONNX Runtime", sessions, variant.model)
    return ways


def make_request(variant: Variant, n_slices: int, n_prompts: int) -> Request:
    input_ids, attention_mask = (torch.from_numpy(array) for array in tokenize(SENTENCES[:n_prompts])[:2])
    if variant.model == "medimageparse_3d":
        image = blobs(variant.image_size, n_slices + 2, np.random.default_rng(SEED))
    else:
        image = random_picture(variant.image_size)[None]
    return Request(torch.from_numpy(image), (input_ids, attention_mask))


def run_parts(way: Way, request: Request) -> tuple[dict[str, float], tuple]:
    """Seconds of each part, and the results."""
    marks = [time.perf_counter()]
    text = way.encode_text(*request.prompts)
    marks.append(time.perf_counter())
    features = way.encode_image(request.image)
    marks.append(time.perf_counter())
    results = way.decode(request, features, text)
    marks.append(time.perf_counter())
    seconds = dict(zip((TEXT, IMAGE, MASKS), np.diff(marks).tolist(), strict=True))
    return seconds | {ALL: marks[-1] - marks[0]}, results


def agreement(expected: tuple, found: tuple) -> dict[str, float]:
    """Share of pixels with the same label, in 2D on the same side of a mask's edge, and mean IoU of the masks."""

    def labels(results: tuple) -> Tensor:
        first = results[0]
        if first.dtype != torch.float32:
            return first
        return (first > 0) * torch.arange(1, len(first) + 1)[:, None, None]

    first, other = labels(expected), labels(found)
    return {"label_agreement": float((first == other).float().mean()), "mask_iou": mask_iou(first, other)}


Seconds = dict[tuple[str, int, str], list[float]]  # way, prompts, part -> of every round


def measure(
    ways: Mapping[str, Way], noisy: Way, requests: Mapping[int, Request], rounds: int
) -> tuple[Seconds, dict[tuple[str, int], dict[str, float]]]:
    """Seconds of every round, and how far each way agrees with the original on the same noise (`noisy`)."""
    seconds: Seconds = defaultdict(list)
    agreements = {}
    for n_prompts, request in requests.items():
        _, expected = run_parts(noisy, request)
        for name, way in ways.items():
            if name != ORIGINAL:
                agreements[name, n_prompts] = agreement(expected, run_parts(way, request)[1])
    for _ in range(rounds):
        for n_prompts, request in requests.items():
            for name, way in ways.items():
                for part, spent in run_parts(way, request)[0].items():
                    seconds[name, n_prompts, part].append(spent)
    few, many = min(requests), max(requests)
    if few < many:
        for name in ways:
            pairs = zip(seconds[name, few, ALL], seconds[name, many, ALL], strict=True)
            seconds[name, many, EXTRA_PROMPT] = [(most - least) / (many - few) for least, most in pairs]
    return seconds, agreements


def class_name_seconds(modules: Mapping[str, nn.Module]) -> float:
    """One class measured, all counted."""
    input_ids = torch.from_numpy(class_token_ids()[0][0])
    started = time.perf_counter()
    original.class_embedding(modules["text_encoder_3d"].text_encoder, input_ids)
    return len(CLASSES) * (time.perf_counter() - started)


def find_graphs(variant: Variant, options: argparse.Namespace) -> Path:
    """The folder with the variant's graphs of the same random weights; exported where none is named."""
    wanted = (variant.name, f"random weights, seed {options.seed}")
    for folder in options.graphs:
        description = folder / variant.model / "1" / "networks.json"
        if description.exists():
            found = json.loads(description.read_text())
            if (found["variant"], found["checkpoint_sha256"]) == wanted and found["precision"] == "fp32":
                return folder
    if options.graphs:
        raise SystemExit(f"no folder of --graphs has {' with '.join(wanted)} in fp32; left out, they are exported")
    return random_graphs(options.work, variant.name, "fp32", options.seed)


def measure_model(variant: Variant, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """The rows of one model."""
    is_3d = variant.model == "medimageparse_3d"
    graphs = find_graphs(variant, options)
    modules = {name: module.requires_grad_(False) for name, module in build_random(variant, options.seed).items()}
    ways = ways_of(variant, modules, graphs, options.threads)
    n_slices = options.slices if is_3d else 1
    requests = {n: make_request(variant, n_slices, n) for n in (options.prompts if is_3d else options.prompts_2d)}
    noisy = ways[ORIGINAL]
    if is_3d:
        masks = modules["mask_decoder_3d"]
        noisy = original_3d(modules, [getattr(masks, f"noise_{i}") for i in range(variant.n_decoder_layers)])
    here, others = conditions(PACKAGES), OtherLoad(THIS_PROGRAM)
    seconds, agreements = measure(ways, noisy, requests, options.rounds)
    if is_3d:
        seconds[ORIGINAL, min(requests), CLASS_NAMES] = [class_name_seconds(modules)]
    others_share = others.share()
    for (name, n_prompts, part), spent in seconds.items():
        of_original = seconds[ORIGINAL, n_prompts, part]
        yield here | {
            "others_share": others_share,
            "model": variant.model,
            "variant": variant.name,
            "weights": f"random, seed {options.seed}",
            "way": name,
            "runtime": ways[name].runtime,
            "precision": "image encoder bf16, rest fp32" if name == BF16 else "fp32",
            "threads": options.threads,
            "size": variant.image_size,
            "slices": n_slices,
            "prompts": n_prompts,
            "tokens": requests[n_prompts].prompts[0].shape[1],
            "part": part,
            "rounds": len(spent),
            "median_s": median(spent),
            "best_s": min(spent),
            "s_per_slice": median(spent) / n_slices,
            "times_original": median([a / b for a, b in zip(spent, of_original, strict=True)]),
            **(agreements.get((name, n_prompts), NOT_COMPARED) if part == ALL else NOT_COMPARED),
        }


def summary(row: Mapping[str, object]) -> str:
    line = f"{row['model']:<17}{row['prompts']:>2} prompts  {row['part']:<30}{row['way']:<28}"
    line += f"{row['median_s']:10.4f} s  {row['times_original']:6.3f} of the original"
    if row["label_agreement"] == "":
        return line
    return f"{line}, {100 * row['label_agreement']:.2f} % of pixels equal, IoU {row['mask_iou']:.4f}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="for the exported graphs")
    parser.add_argument(
        "--graphs", type=Path, nargs="+", default=[], metavar="DIR", help="exported already, from the same seed"
    )
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="of the random weights")
    parser.add_argument("--variant", choices=("PUBLISHED", "DEMO", "TINY"), default=PUBLISHED.name)
    parser.add_argument("--models", nargs="+", choices=("3d", "2d"), default=["3d", "2d"])
    parser.add_argument("--slices", type=int, default=1, help="of a batch in 3D")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 15], metavar="N", help="in 3D, at most 17")
    parser.add_argument("--prompts-2d", type=int, nargs="+", default=[1], metavar="N", help="in 2D, decoded together")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    parser.add_argument("--results", type=Path, metavar="CSV", help="by default results/VARIANT/schedules.csv")
    options = parser.parse_args(arguments)
    if max(*options.prompts, *options.prompts_2d) > len(SENTENCES):
        parser.error(f"there are {len(SENTENCES)} sentences; ask for at most as many prompts")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    results = options.results or RESULTS / options.variant / "schedules.csv"
    torch.set_num_threads(options.threads)
    names = {"3d": options.variant, "2d": f"{options.variant}_2D"}
    for model in options.models:
        with torch.no_grad():
            for row in measure_model(VARIANTS[names[model]], options):
                append_row(results, row)
                print(summary(row), flush=True)


if __name__ == "__main__":
    main()
