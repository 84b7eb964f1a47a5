"""The ways to run the three networks of a model, each of them tensors in and out as they are served; and their parity.

TECHNIQUES at the end has one a line. The originals' schedule takes and gives the same tensors as our networks.
"""

import copy
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path

import numpy as np
import original_schedule as schedule
import original_schedule_2d as schedule_2d
import torch
from medimageparse.comparison import blobs
from medimageparse.networks import build_random
from medimageparse.served_tensors import Network, networks
from medimageparse.variants import Variant
from recording import IMAGE_IN_BF16, description_of, find_graphs, graph_of, median
from runtimes import Run, named, now, onnx_run, openvino_run
from torch import Tensor, nn

PARTS = TEXT, IMAGE, MASKS = "text encoder", "image encoder", "mask decoder"
ALL = "all"
N_TOKENS = 15  # of the longest of the 15 sentences for the real CT

Tensors = dict[str, Tensor]  # by the names that they are served under
Way = Mapping[str, Run]  # by part
Ways = Mapping[str, Way]  # by the names of TECHNIQUES
Type = torch.dtype | None
Sizes, Seconds = tuple[int, int, str], list[float]  # slices, prompts and part; of every round
Measured = dict[tuple[str, int, str], tuple[Seconds, dict[str, object]]]


@dataclass(frozen=True)
class Setup:
    """device: "cuda" or "cpu"; options: as parser_of makes them."""

    device: str
    variant: Variant
    options: Namespace

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """In fp32 with random weights, by part."""
        built = build_random(self.variant, self.options.seed).values()
        return {part: m.to(self.device).requires_grad_(False) for part, m in zip(PARTS, built, strict=True)}

    @cached_property
    def networks(self) -> dict[str, Network]:
        return dict(zip(PARTS, networks(self.variant).values(), strict=True))

    def graphs(self, precision: str) -> dict[str, Path]:
        """Of the same weights."""
        folder = find_graphs(self.variant.model, self.options, precision)
        wanted, found = f"random weights, seed {self.options.seed}", description_of(folder, self.variant.model)
        if (found["variant"], found["checkpoint_sha256"], found["precision"]) != (self.variant.name, wanted, precision):
            raise SystemExit(f"no folder of --graphs has {self.variant.name}, {wanted}; left out, they are exported")
        return {part: graph_of(folder, network.name) for part, network in self.networks.items()}


def make_request(setup: Setup, n_slices: int, n_prompts: int, seed: int = 0) -> Tensors:
    """A made-up window of slices, or an image, and prompts of several lengths that a mark ends."""
    random, variant = np.random.default_rng(seed), setup.variant
    if variant.model == "medimageparse_3d":
        image = blobs(variant.image_size, n_slices + 2, random).astype(np.uint8)[None]
    else:
        image = np.ascontiguousarray(blobs(variant.image_size, 3, random).astype(np.uint8).transpose(1, 2, 0)[None])
    lengths = random.integers(3, N_TOKENS + 1, (n_prompts, 1))
    lengths[-1] = N_TOKENS
    start, end = variant.vocabulary_size - 2, variant.vocabulary_size - 1
    input_ids = random.integers(1, start, (n_prompts, N_TOKENS))
    input_ids[:, 0] = start
    input_ids[np.arange(N_TOKENS) >= lengths - 1] = end
    attention_mask = (np.arange(N_TOKENS) < lengths).astype(np.int64)
    arrays = {"input_ids": input_ids, "attention_mask": attention_mask, "prompt_groups": np.arange(n_prompts)[None]}
    arrays["digit_values"] = np.ones(1, np.float32)  # of a window
    arrays["noise_fields"] = np.zeros(n_prompts, np.int64)
    arrays[setup.networks[IMAGE].inputs[0].name] = image
    return {name: torch.from_numpy(array).to(setup.device) for name, array in arrays.items()}


def run_parts(setup: Setup, way: Way, request: Tensors) -> tuple[Tensors, dict[str, float]]:
    """All that the three networks make of a request, and the seconds of each part and of all."""
    known, seconds = dict(request), {}
    for part in PARTS:
        started = now(setup.device)
        known |= way[part](known)
        seconds[part] = now(setup.device) - started
    return known, seconds | {ALL: sum(seconds.values())}


def parity(part: str, expected: Tensors, found: Tensors) -> dict[str, object]:
    """Relative L2 of a part's results; of the whole, how many pixels have the same label, and the masks' mean IoU."""
    name = {TEXT: "text_features", IMAGE: "memory_stride8"}.get(part, "mask_logits")
    name = name if name in expected else "prompt_features"
    wanted, had = expected[name].double(), found[name].double()
    measured = {"label_agreement": "", "mask_iou": "", "relative_l2": float((had - wanted).norm() / wanted.norm())}
    if part == ALL:
        a, b = labels_of(expected), labels_of(found)
        labels = [label for label in torch.cat([a, b]).unique().tolist() if label]
        overlaps = [float(((a == k) & (b == k)).sum() / ((a == k) | (b == k)).sum()) for k in labels]
        measured["mask_iou"] = float(np.mean(overlaps)) if overlaps else float("nan")
        measured["label_agreement"] = float((a == b).float().mean())
    return measured


def labels_of(results: Tensors) -> Tensor:
    """In 2D the number of a prompt where a pixel is inside of its mask."""
    if "label_slices" in results:
        return results["label_slices"]
    masks = results["mask_logits"] > 0
    return masks * torch.arange(1, len(masks) + 1, device=masks.device)[:, None, None]


def original(setup: Setup, draws: bool = True) -> Way:
    """What the original of the model computes, with our weights; in 3D it draws anew for every prompt, or as ours."""
    text, image, masks = (setup.modules[part] for part in PARTS)
    last = masks.mask_decoder.mask_features

    def decode_3d(*inputs: Tensor) -> tuple[Tensor, ...]:
        noise = None if draws else masks.noise_of(torch.zeros(1, dtype=torch.int64))
        mask_logits, edge_logits, existence = schedule.masks_3d(masks, inputs[:4], inputs[4], noise)
        labels, scores = schedule.merge_3d(mask_logits, existence, setup.variant.image_size)
        return labels, scores, mask_logits, edge_logits

    def decode_2d(*inputs: Tensor) -> tuple[Tensor, ...]:
        return schedule_2d.masks_2d(masks, inputs[:4], inputs[4], inputs[6])

    if setup.variant.model == "medimageparse_3d":
        calls = partial(schedule.text_3d, text), partial(schedule.image_3d, image, last), decode_3d
    else:
        calls = partial(schedule_2d.text_2d, text), partial(schedule_2d.image_2d, image, last), decode_2d
    return {part: named(setup.networks[part], call) for part, call in zip(PARTS, calls, strict=True)}


def pytorch(setup: Setup, weights: Type = None, autocast: Type = None, graphs: bool = False) -> Way:
    """PyTorch, eager, or compiled with CUDA `graphs`.

    weights: a half precision for what the fp16 export halves; the casts written in the networks do the rest
    """
    torch.backends.cudnn.allow_tf32 = False  # nor do products round their operands: "highest" is PyTorch's default
    context = partial(torch.autocast, setup.device, autocast) if autocast else nullcontext

    def prepare(part: str) -> Run:
        module = setup.modules[part] if weights is None else halved(setup.modules[part], weights)
        called = torch.compile(module, mode="reduce-overhead", dynamic=False) if graphs else module

        def call(*inputs: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad(), context():
                outputs = called(*inputs)
            outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
            # the next replay of a CUDA graph writes over its outputs
            return tuple(output.clone() for output in outputs) if graphs else outputs

        return named(setup.networks[part], call)

    return {part: prepare(part) for part in PARTS}


def halved(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose weights are in `dtype` where the fp16 export has float16: all but norms and buffers."""
    from medimageparse.export_onnx import to_float16

    half = to_float16(copy.deepcopy(module))
    for parameter, original in zip(half.parameters(), module.parameters(), strict=True):
        if parameter.dtype == torch.float16:
            parameter.data = original.data.to(dtype)
    return half


def onnx_runtime(setup: Setup, precision: str = "fp32") -> Way:
    return {part: onnx_run(file, setup.device) for part, file in setup.graphs(precision).items()}


def openvino_bf16(setup: Setup) -> Way:
    return onnx_runtime(setup) | {IMAGE: openvino_run(setup.graphs("fp32")[IMAGE], setup.networks[IMAGE])}


Technique = tuple[str, str, str, Callable[[Setup], Way]]  # way as in the results, runtime, precision, what prepares it
TORCH, ONNX = "PyTorch", "ONNX Runtime"
TECHNIQUES: dict[str, Technique] = {
    "original": ("original", TORCH, "fp32", original),
    "eager-fp32": ("ours, PyTorch", TORCH, "fp32", pytorch),
    "autocast-bf16": ("ours, PyTorch, autocast", TORCH, "bf16", partial(pytorch, autocast=torch.bfloat16)),
    "typed-fp16": ("ours, PyTorch, fp16 weights", TORCH, "fp16", partial(pytorch, weights=torch.float16)),
    "compile-bf16": ("ours, torch.compile", TORCH, "bf16", partial(pytorch, weights=torch.bfloat16, graphs=True)),
    "onnxruntime-fp32": ("ours, ONNX Runtime", ONNX, "fp32", onnx_runtime),
    "onnxruntime-fp16": ("ours, ONNX Runtime, fp16", ONNX, "fp16", partial(onnx_runtime, precision="fp16")),
    "openvino-bf16": ("ours, image encoder in bf16", f"OpenVINO, {ONNX}", IMAGE_IN_BF16, openvino_bf16),
}


@torch.no_grad()
def measure(setup: Setup, ways: Ways, n_slices: int, prompts: list[int], rounds: int) -> Measured:
    """Of a way, prompts and part: seconds of every round, and the parity with the original on our noise.

    Each round runs every way with every number of prompts, so that a change of the machine's speed meets all.
    """
    noisy, found = original(setup, draws=False), {}
    requests = {n_prompts: make_request(setup, n_slices, n_prompts) for n_prompts in prompts}
    for n_prompts, request in requests.items():
        expected, _ = run_parts(setup, noisy, request)
        for name, way in ways.items():
            results, _ = run_parts(setup, way, request)
            found |= {(name, n_prompts, part): ([], parity(part, expected, results)) for part in (*PARTS, ALL)}
    for _, (n_prompts, request), (name, way) in product(range(rounds), requests.items(), ways.items()):
        for part, seconds in run_parts(setup, way, request)[1].items():
            found[name, n_prompts, part][0].append(seconds)
    return found


def columns(setup: Setup, name: str, sizes: Sizes, times: Seconds, of_original: Seconds) -> dict[str, object]:
    """What a row says of a way, of slices, prompts and part, and of its time."""
    n_slices, n_prompts, part = sizes
    way, runtime, precision, _ = TECHNIQUES[name]
    said = {"model": setup.variant.model, "variant": setup.variant.name}
    said |= {"weights": f"random, seed {setup.options.seed}", "way": way, "runtime": runtime, "precision": precision}
    said |= {"threads": torch.get_num_threads(), "size": setup.variant.image_size, "slices": n_slices}
    said |= {"prompts": n_prompts, "tokens": N_TOKENS, "part": part, "rounds": len(times), "median_s": median(times)}
    ratio = median([a / b for a, b in zip(times, of_original, strict=True)])
    return said | {"best_s": min(times), "s_per_slice": median(times) / n_slices, "times_original": ratio}
