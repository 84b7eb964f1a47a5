"""python tests/parity.py FILE... [--onnx]: our code against tensors recorded from the original implementation.

FILE is like shared/golden/v2_tiny.npz or v1_tiny.npz (networks, weights under published names) or like v2_post.npz or
v1_post.npz (cases of pre- and post-processing); all sizes are read from it. With --onnx the networks run in ONNX
Runtime, on graphs exported for that file. One line per tensor; the exit status is 0 only if every tensor is within 1e-4
and every label map within 0.05 % of its voxels.
"""

import argparse
import json
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import onnx_ir
import onnxruntime
import parity_2d
import parity_2d_post
import torch
from medimageparse import mask_decoder
from medimageparse.checkpoint import load_networks
from medimageparse.export_onnx import graph_of
from medimageparse.merging import Merging, non_maximum_suppression
from medimageparse.served_tensors import Dimension, Network, TensorSpec, grids, mask_side, networks
from medimageparse.variants import Variant
from medimageparse_serving.volume.nifti_volume import choose_slice_axis
from medimageparse_serving.volume.sliding_window import from_square, iterate_windows, margins, to_square
from torch import Tensor, nn

TENSOR_TOLERANCE = 1e-4
LABEL_TOLERANCE = 0.0005
# Rounding grows from layer to layer of the mask decoder: in v2_tiny the original's float32 is 1.1e-4 away from float64
# in the logits of single queries, before they are averaged (ours 6e-5). States inside the decoder are therefore
# measured against their largest magnitude; everything that leaves a network is measured as it is.
INSIDE_DECODER = ("layer_", "all_query_mask_logits", "query_states", "pred_masks", "pred_logits")
USED_ROWS = "#used_rows"
UNSPECIFIED = {"nms/tie_many": "the original's order of equal scores is arbitrary"}

Run = Callable[..., list[np.ndarray]]  # arrays in, arrays out: a network in PyTorch or in ONNX Runtime


class Report:
    """Prints one line per tensor and remembers whether all were within the tolerance."""

    def __init__(self, golden: Mapping[str, np.ndarray]):
        self.golden = golden
        self.passed = True

    def tensor(self, name: str, found: np.ndarray) -> None:
        """Compares with the recorded tensor of that name, if the file has it."""
        if name in self.golden:
            expected = self.golden[name]
            same_shape = expected.shape == found.shape
            error = np.abs(found.astype(np.float64) - expected).max(initial=0) if same_shape else np.inf
            scale = (
                max(1.0, float(np.abs(expected).max())) if name.rpartition("/")[2].startswith(INSIDE_DECODER) else 1.0
            )
            text = f"{error:.2e}" if scale == 1 else f"{error:.2e} of {scale:.1f}"
            self.line(name, expected.shape, error, scale * TENSOR_TOLERANCE, text)

    def labels(self, name: str, found: np.ndarray) -> None:
        if name in self.golden:
            expected = self.golden[name]
            share = (
                np.mean(found != expected)
                if expected.shape == found.shape and expected.size
                else float(expected.shape != found.shape)
            )
            self.line(name, expected.shape, share, LABEL_TOLERANCE, f"{100 * share:.4f} % differ")

    def same(self, name: str, expected: object, found: object) -> None:
        self.line(name, (), float(expected != found), 0, f"{found}")

    def skipped(self, name: str, reason: str) -> None:
        print(f"{name:<44} not compared: {reason}")

    def line(self, name: str, shape: tuple[int, ...], error: float, tolerance: float, text: str) -> None:
        within = bool(error <= tolerance)
        self.passed &= within
        print(f"{name:<44} {str(list(shape)):<24} {text:<18} {'ok' if within else 'FAILED'}")


def in_torch(module: nn.Module) -> Run:
    def run(*inputs: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        tensors = [
            torch.from_numpy(x) if isinstance(x, np.ndarray) else [torch.from_numpy(y) for y in x] for x in inputs
        ]
        with torch.no_grad():
            outputs = module(*tensors)
        return [x.numpy() for x in ((outputs,) if isinstance(outputs, Tensor) else outputs)]

    return run


def in_onnxruntime(module: nn.Module, network: Network, noise: Sequence[TensorSpec] = ()) -> Run:
    """The network exported now, to a file that is gone once it is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx_ir.save(graph_of(module, network, noise), path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in (*network.inputs, *noise)]
    outputs = [spec.name for spec in network.outputs]

    def run(*inputs: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        arrays = [array for x in inputs for array in ([x] if isinstance(x, np.ndarray) else x)]
        return session.run(outputs, dict(zip(names, arrays, strict=True)))

    return run


SLICES, PROMPTS, TOKENS, PIXELS = (Dimension(name, 1, 1, 1) for name in ("slices", "prompts", "tokens", "pixels"))


def merging_network(grid: int, size: int) -> Network:
    """Merging as a graph of its own."""
    return Network(
        "merging",
        (
            TensorSpec("mask_logits", np.float32, (SLICES, PROMPTS, grid, grid)),
            TensorSpec("existence", np.float32, (SLICES, PROMPTS)),
        ),
        (
            TensorSpec("label_slices", np.uint8, (SLICES, size, size)),
            TensorSpec("scores", np.float32, (SLICES, PROMPTS)),
        ),
    )


class Suppression(nn.Module):
    def forward(self, masks: Tensor, scores: Tensor) -> Tensor:
        return non_maximum_suppression(masks, scores, scores >= 0.5)


def suppression_network(n_pixels: int) -> Network:
    scores = TensorSpec("scores", np.float32, (SLICES, PROMPTS))
    masks = TensorSpec("masks", np.bool_, (SLICES, PROMPTS, n_pixels))
    return Network("suppression", (masks, scores), (TensorSpec("stays", np.bool_, (SLICES, PROMPTS)),))


# Files like v2_tiny.npz: the networks.


def read_variant(config: Mapping) -> Variant:
    return Variant(
        name="GOLDEN",
        image_size=config["size"],
        backbone_width=config["embed"],
        backbone_depths=tuple(config["depths"]),
        width=config["dim"],
        n_heads=config["heads"],
        ffn_width=config["ffn"],
        n_encoder_layers=config["enc_layers"],
        n_decoder_layers=config["dec_layers"],
        text_width=config["t_width"],
        text_heads=config["t_heads"],
        text_layers=config["t_layers"],
        n_queries=config["queries"],
        n_edge_queries=config["edge"],
        vocabulary_size=config["vocab"],
        context_length=config["ctx"],
    )


def read_weights(golden: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Weights under their published names; rows of the token embedding that no prompt uses are zero."""
    tensors = {}
    for name in golden:
        if name.startswith("sd/"):
            tensor = torch.from_numpy(golden[name]).float()
            if name.endswith(USED_ROWS):
                rows = torch.zeros(json.loads(str(golden["config"]))["vocab"], tensor.shape[1])
                rows[torch.from_numpy(golden["vocab_used_ids"]).long()] = tensor
                tensor = rows
            tensors[name.removeprefix("sd/").removesuffix(USED_ROWS)] = tensor
    return tensors


def check_networks(golden: Mapping[str, np.ndarray], report: Report, onnx: bool) -> None:
    config = json.loads(str(golden["config"]))
    variant = read_variant(config)
    modules = load_networks(read_weights(golden), variant)
    check_preprocessing(golden, report)
    ids, mask = (golden[name].astype(np.int64) for name in ("input_ids", "attention_mask"))
    if onnx:
        runs = {
            name: in_onnxruntime(modules[name], network)
            for name, network in networks(variant).items()
            if name != "mask_decoder_3d"
        }
        runs["mask_decoder_3d"] = in_onnxruntime(
            modules["mask_decoder_3d"], networks(variant)["mask_decoder_3d"], noise_inputs(variant)
        )
        outputs = run_windows(golden, variant, runs, config["slice_batch"])
    else:
        check_text(report, modules["text_encoder_3d"], ids)
        runs = {name: in_torch(module) for name, module in modules.items()}
        with watched(modules) as seen:
            outputs = run_windows(golden, variant, runs, config["slice_batch"])
        check_layers(report, seen, mask_features(modules, outputs), mask.shape[0])
    report.tensor("mask_features_first_last", mask_features(modules, outputs)[[0, -1]])
    check_outputs(golden, report, variant, modules["mask_decoder_3d"].merging, outputs, onnx)


def mask_features(modules: Mapping[str, nn.Module], outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """What the original's pixel decoder ends with, and ours never computes."""
    return in_torch(modules["mask_decoder_3d"].mask_decoder.mask_features)(outputs["features_stride4"])[0]


def check_preprocessing(golden: Mapping[str, np.ndarray], report: Report) -> None:
    """The way of a volume to the network's input, as medimageparse_3d and decode_volume go it."""
    if "raw_volume" not in golden:
        return
    volume = golden["raw_volume"]
    axis = choose_slice_axis(list(volume.shape), "auto")
    slices = np.moveaxis(volume, axis, 0)
    report.same("axis", int(golden["axis"]), axis)
    report.same("padded_size", int(golden["padded_size"]), max(slices.shape[1:]))
    report.same("pad_width", golden["pad_width"][1:, 0].tolist(), margins(slices.shape[1:]))
    processed = squares(slices, golden["processed_int"].shape[-1])
    # of floats the original cuts off fractions too: where one is rounding away from a whole number, 1 may be missing
    (report.tensor if volume.dtype == np.uint8 else report.labels)("processed_int", processed)


def squares(slices: np.ndarray, size: int) -> np.ndarray:
    """Slices as medimageparse_3d makes them for the network; other than bytes arrive there in float32."""
    slices = slices if slices.dtype == np.uint8 else slices.astype(np.float32)
    return np.stack([to_square(image, size) for image in slices])


def noise_inputs(variant: Variant) -> list[TensorSpec]:
    shapes = [
        (SLICES, variant.n_heads, PROMPTS, variant.n_queries, grids(variant)[i % 3] ** 2)
        for i in range(variant.n_decoder_layers)
    ]
    return [TensorSpec(f"noise_{i}", np.float32, shape) for i, shape in enumerate(shapes)]


def run_windows(
    golden: Mapping[str, np.ndarray], variant: Variant, runs: Mapping[str, Run], window_size: int
) -> dict[str, np.ndarray]:
    """All served tensors of the file's volume and prompts, window after window."""
    ids, mask = (golden[name].astype(np.int64) for name in ("input_ids", "attention_mask"))
    n_tokens = mask.sum(1).max()
    text_features = runs["text_encoder_3d"](ids[:, :n_tokens], mask[:, :n_tokens])[0]
    collected = defaultdict(list)
    table = networks(variant)
    volume = golden["processed_int"].astype(np.float32)
    for window, image in iterate_windows(volume, window_size, variant.image_size):
        features = runs["image_encoder_3d"](image)
        noise = [noise_of(golden, layer)[window.start : window.stop] for layer in range(variant.n_decoder_layers)]
        results = runs["mask_decoder_3d"](*features, text_features, noise)
        for name, arrays in (("image_encoder_3d", features), ("mask_decoder_3d", results)):
            for spec, array in zip(table[name].outputs, arrays, strict=True):
                collected[spec.name].append(array)
    return {"text_features": text_features} | {name: np.concatenate(arrays) for name, arrays in collected.items()}


def noise_of(golden: Mapping[str, np.ndarray], layer: int) -> np.ndarray:
    """Recorded [D, P, heads, Q, N] -> [D, heads, P, Q, N]."""
    noise = (golden[f"noise_u16_{layer}"].astype(np.float32) + 0.5) / np.float32(65536)
    return np.ascontiguousarray(noise.swapaxes(1, 2))


def check_text(report: Report, text_features: nn.Module, ids: np.ndarray) -> None:
    """The text encoder at the full context length, as the original runs it."""
    encoder = text_features.text_encoder
    last_hidden = []
    handle = encoder.ln_final.register_forward_hook(lambda _module, _inputs, output: last_hidden.append(output.numpy()))
    token_emb = in_torch(encoder)(ids)[0]
    handle.remove()
    report.tensor("text_last_hidden", last_hidden[0])
    report.tensor("token_emb", token_emb)
    report.tensor("class_emb", token_emb[np.arange(len(ids)), ids.argmax(1)])


class watched:
    """Collects what the networks' parts return in each window while it is open, named as in the golden files."""

    def __init__(self, modules: Mapping[str, nn.Module]):
        self.seen: dict[str, list[np.ndarray]] = defaultdict(list)
        encoder, decoder = modules["image_encoder_3d"], modules["mask_decoder_3d"].mask_decoder
        self.parts = [
            ("res", encoder.backbone),
            ("transformer_encoder", encoder.pixel_decoder.encoder[-1]),
            ("query_0", decoder.initial_ffn),
            ("combined_0", decoder.initial_self_attention),
            ("mask_embed", decoder.mask_embed),
            ("existence", decoder.classifier),
        ]
        for i, layer in enumerate(decoder.layers):
            self.parts += [(f"query_{i + 1}", layer.ffn), (f"combined_{i + 1}", layer.self_attention)]
            self.parts += [(f"cross_{i}", layer.cross_attention), (f"cls_{i}", layer.classifier_ffn)]
        self.backbone = encoder.backbone

    def keep(self, name: str, value: Tensor | list[Tensor]) -> None:
        if isinstance(value, list):
            for i, tensor in enumerate(value):
                self.keep(f"{name}{i + 2}", tensor)  # res2 to res5
        else:
            self.seen[name].append(value.numpy())

    def __enter__(self) -> dict[str, list[np.ndarray]]:
        def hook(name: str) -> Callable:
            return lambda _module, _inputs, output: self.keep(name, output)

        self.handles = [part.register_forward_hook(hook(name)) for name, part in self.parts]
        self.handles.append(
            self.backbone.register_forward_pre_hook(lambda _m, inputs: self.keep("image_batch", inputs[0]))
        )
        sample = mask_decoder.sample_blocked

        def sample_watched(missed: Tensor, noise: Tensor) -> Tensor:
            self.keep("missed", missed)
            self.keep("blocked", noise < missed.unsqueeze(1))
            return sample(missed, noise)

        self.patch = mock.patch.object(mask_decoder, "sample_blocked", sample_watched)
        self.patch.start()
        return self.seen

    def __exit__(self, *_: object) -> None:
        self.patch.stop()
        for handle in self.handles:
            handle.remove()


def check_layers(
    report: Report, seen: Mapping[str, list[np.ndarray]], mask_features: np.ndarray, n_prompts: int
) -> None:
    """Everything between the inputs and the outputs of image encoder and mask decoder."""
    n_layers = sum(name.startswith("cls_") for name in seen)

    def ends(x: np.ndarray) -> np.ndarray:
        return x[[0, -1]]

    def per_prompt(name: str) -> np.ndarray:  # windows of [S * P, ...] -> [D, P, ...]
        return np.concatenate([x.reshape(-1, n_prompts, *x.shape[1:]) for x in seen[name]])

    report.tensor("image_batch_first_last", ends(np.concatenate(seen["image_batch"])))
    report.tensor("res2_first_last", ends(np.concatenate(seen["res2"])))
    for name in ("res3", "res4", "res5"):
        report.tensor(name, np.concatenate(seen[name]))
    tokens = np.concatenate(seen["transformer_encoder"])  # [D, N, C]
    side = int(tokens.shape[1] ** 0.5)
    report.tensor("transformer_encoder", tokens.swapaxes(1, 2).reshape(len(tokens), -1, side, side))
    report.tensor("layer_query", np.stack([per_prompt(f"query_{i}") for i in range(n_layers + 1)]))
    report.tensor("layer_combined", np.stack([per_prompt(f"combined_{i}") for i in range(n_layers + 1)]))
    report.tensor("layer_cross", np.stack([per_prompt(f"cross_{i}") for i in range(n_layers)]))
    report.tensor("layer_cls", np.stack([per_prompt(f"cls_{i}")[:, :, 0] for i in range(n_layers)]))
    report.tensor("object_existence", per_prompt("existence")[:, :, 0, 0].T)
    check_sampling(report, seen, n_layers)
    embeddings = [
        np.concatenate([x.reshape(-1, n_prompts, *x.shape[1:]) for x in seen["mask_embed"][i :: n_layers + 1]])
        for i in range(n_layers + 1)
    ]  # of each prediction round, [D, P, Q, C]
    report.tensor("all_query_mask_logits", np.einsum("dpqc,dchw->dpqhw", embeddings[-1], mask_features))
    for name, s, p in found_in(report.golden, r"layer_mask_logits_s(\d+)_p(\d+)"):
        report.tensor(name, np.stack([np.einsum("qc,chw->qhw", e[s, p], mask_features[s]) for e in embeddings]))


def check_sampling(report: Report, seen: Mapping[str, list[np.ndarray]], n_layers: int) -> None:
    """Boltzmann probabilities and which tokens were hidden, before rows hidden altogether are opened."""
    missed = [np.concatenate(seen["missed"][i::n_layers]) for i in range(n_layers)]  # [D, P, Q, N]
    blocked = [np.concatenate(seen["blocked"][i::n_layers]) for i in range(n_layers)]  # [D, heads, P, Q, N]
    unused = f"the round after the last layer, {n_layers}, is not needed"
    for name, s, i in found_in(report.golden, r"masked_prob_s(\d+)_(\d+)"):
        report.tensor(name, missed[i][s]) if i < n_layers else report.skipped(name, unused)
    for name, i in found_in(report.golden, r"attn_mask_bits_(\d+)"):
        if i == n_layers:
            report.skipped(name, unused)
            continue
        shape = tuple(report.golden[f"attn_mask_shape_{i}"])
        bits = np.unpackbits(report.golden[name], count=int(np.prod(shape))).reshape(shape)
        unpacked = Report({name: bits})
        unpacked.tensor(name, blocked[i].swapaxes(1, 2))
        report.passed &= unpacked.passed


def found_in(golden: Mapping[str, np.ndarray], pattern: str) -> Iterator[tuple]:
    """Names that match, each with its numbers, in numerical order."""
    matches = [match for match in (re.fullmatch(pattern, name) for name in golden) if match]
    return iter(sorted(((m[0], *map(int, m.groups())) for m in matches), key=lambda found: found[1:]))


def check_outputs(
    golden: Mapping[str, np.ndarray],
    report: Report,
    variant: Variant,
    merging: Merging,
    outputs: Mapping[str, np.ndarray],
    onnx: bool,
) -> None:
    report.tensor("grounding_tokens", outputs["text_features"].swapaxes(0, 1))
    for name, stride in (("ms0", 32), ("ms1", 16), ("ms2", 8)):
        report.tensor(name, outputs[f"memory_stride{stride}"])
    report.tensor("pred_gmasks", outputs["mask_logits"].swapaxes(0, 1))
    report.tensor("edge_masks", outputs["edge_logits"].swapaxes(0, 1))
    existence = golden["object_existence"].astype(np.float32)
    probabilities = Report({"object_existence (as probability)": 1 / (1 + np.exp(-existence))})
    probabilities.tensor("object_existence (as probability)", outputs["scores"].T)
    report.passed &= probabilities.passed
    side = mask_side(variant)
    merge = in_onnxruntime(merging, merging_network(side, variant.image_size)) if onnx else in_torch(merging)
    if not onnx:
        shown = merging.shown(torch.from_numpy(outputs["mask_logits"]), torch.from_numpy(outputs["scores"]))
        report.tensor("mask_post", shown.swapaxes(0, 1).numpy())
    report.labels("labels_square", numbered(outputs["label_slices"], golden["ids"]))
    report.labels("labels", to_volume(outputs["label_slices"], golden))
    edges = merge(outputs["edge_logits"], np.ascontiguousarray(existence.T))[0]
    report.labels("edge_labels", to_volume(edges, golden))
    for name in ("instances", "instances_plain"):
        if name in golden:
            report.skipped(name, "not built yet")


def numbered(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Label k -> the k-th id of the request, 0 stays."""
    return np.concatenate([[0], ids]).astype(np.int64)[labels]


def to_volume(label_slices: np.ndarray, golden: Mapping[str, np.ndarray]) -> np.ndarray:
    axis = int(golden["axis"])
    height, width = np.moveaxis(golden["raw_volume"], axis, 0).shape[1:]
    return np.moveaxis(numbered(from_square(label_slices, height, width), golden["ids"]), 0, axis)


# Files like v2_post.npz: cases of pre- and post-processing.


def check_cases(golden: Mapping[str, np.ndarray], report: Report, onnx: bool) -> None:
    checks = {"post": check_merging, "nms": check_suppression, "geom": check_geometry}
    exported: dict[tuple[int, ...], Run] = {}
    for kind, cases in json.loads(str(golden["meta"])).items():
        for case in cases:
            name = f"{kind}/{case['name']}"
            if kind not in checks:
                report.skipped(name, "not built yet")
            elif name in UNSPECIFIED:
                report.skipped(name, UNSPECIFIED[name])
            else:
                checks[kind](golden, report, name, case, exported if onnx else None)


def check_merging(golden: Mapping, report: Report, name: str, case: Mapping, exported: dict | None) -> None:
    logits, existence = (
        np.ascontiguousarray(golden[f"{name}/{part}"].astype(np.float32).swapaxes(0, 1))
        for part in ("logits", "existence")
    )
    grid, size = logits.shape[-1], golden[f"{name}/labels"].shape[-1]
    merging = Merging(grid, size)
    if exported is None:
        merge = in_torch(merging)
        scores = torch.from_numpy(existence).sigmoid()
        enlarged = (merging.enlarge @ torch.from_numpy(logits) @ merging.enlarge.T).swapaxes(0, 1)
        report.tensor(f"{name}/up_logits", enlarged.numpy())
        report.tensor(f"{name}/prob", merging.shown(torch.from_numpy(logits), scores).swapaxes(0, 1).numpy())
        kept = merging.kept(enlarged.swapaxes(0, 1).sigmoid(), scores)
        report.labels(f"{name}/kept", kept.T.numpy())
    else:
        key = (grid, size)
        merge = exported[key] = exported.get(key) or in_onnxruntime(merging, merging_network(grid, size))
    report.labels(f"{name}/labels", numbered(merge(logits, existence)[0], golden[f"{name}/ids"]))


def check_suppression(golden: Mapping, report: Report, name: str, case: Mapping, exported: dict | None) -> None:
    masks, scores = golden[f"{name}/masks"].astype(bool), golden[f"{name}/scores"].astype(np.float32)
    masks = masks.reshape(1, len(masks), -1)
    suppress = in_torch(Suppression())
    if exported is not None:
        key = (masks.shape[-1],)
        suppress = exported[key] = exported.get(key) or in_onnxruntime(
            Suppression(), suppression_network(masks.shape[-1])
        )
    stays = suppress(masks, scores[None])[0][0]
    report.same(f"{name}/keep", sorted(golden[f"{name}/keep"].tolist()), np.flatnonzero(stays).tolist())


def check_geometry(golden: Mapping, report: Report, name: str, case: Mapping, exported: dict | None) -> None:
    volume = golden[f"{name}/vol"]
    axis = choose_slice_axis(list(volume.shape), "auto")
    slices = np.moveaxis(volume, axis, 0)
    height, width = slices.shape[1:]
    report.same(f"{name}/axis", case["axis"], axis)
    report.same(f"{name}/padded_size", case["padded_size"], max(height, width))
    report.labels(f"{name}/int", squares(slices, golden[f"{name}/int"].shape[-1]))
    labels = from_square(golden[f"{name}/labels_square"], height, width)
    report.labels(f"{name}/labels_out", np.moveaxis(labels, 0, axis))


def check_file(path: Path, onnx: bool) -> bool:
    """Whether everything in one file is within the tolerance."""
    with np.load(path, allow_pickle=False) as golden:
        report = Report(golden)
        if "meta" in golden:
            check_cases(golden, report, onnx)
        elif "config" in golden:
            check_networks(golden, report, onnx)
        elif "class_text_embeddings" in golden:
            parity_2d.check_networks(golden, report, in_torch, in_onnxruntime if onnx else None)
        else:
            parity_2d_post.check_post(golden, report)
    return report.passed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--onnx", action="store_true", help="run freshly exported graphs in ONNX Runtime")
    options = parser.parse_args(arguments)
    passed = []
    for path in options.files:
        print(f"{path} in {'ONNX Runtime' if options.onnx else 'PyTorch'}")
        passed.append(check_file(path, options.onnx))
        print(f"{path}: {'within' if passed[-1] else 'OVER'} the tolerance")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
