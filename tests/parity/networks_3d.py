"""Files like v2_tiny.npz: the 3D networks."""

import json
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from medimageparse.checkpoint import load_networks
from medimageparse.merging import Merging
from medimageparse.served_tensors import TensorSpec, grids, mask_side, networks
from medimageparse.variants import Variant
from medimageparse_contract.slice_axis import choose_slice_axis
from medimageparse_serving.volume.sliding_window import by_digits, from_square, iterate_windows, margins
from torch import Tensor, nn

from .inside_3d import check_layers, watched
from .post_3d import PROMPTS, SLICES, exported_merging, numbered, squares
from .report import Golden, Report
from .running import Run, in_onnxruntime, in_torch

USED_ROWS = "#used_rows"


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


def read_weights(golden: Golden) -> dict[str, Tensor]:
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


def check_networks(golden: Golden, report: Report, onnx: bool) -> None:
    config = json.loads(str(golden["config"]))
    variant = read_variant(config)
    modules = load_networks(read_weights(golden), variant)
    check_preprocessing(golden, report)
    ids, mask = (golden[name].astype(np.int64) for name in ("input_ids", "attention_mask"))
    if onnx:
        noise = {"mask_decoder_3d": noise_inputs(variant)}
        table = networks(variant).items()
        runs = {name: in_onnxruntime(modules[name], network, noise.get(name, ())) for name, network in table}
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


def check_preprocessing(golden: Golden, report: Report) -> None:
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


def noise_inputs(variant: Variant) -> list[TensorSpec]:
    shapes = [
        (SLICES, variant.n_heads, PROMPTS, variant.n_queries, grids(variant)[i % 3] ** 2)
        for i in range(variant.n_decoder_layers)
    ]
    return [TensorSpec(f"noise_{i}", np.float32, shape) for i, shape in enumerate(shapes)]


def run_windows(golden: Golden, variant: Variant, runs: Mapping[str, Run], window_size: int) -> dict[str, np.ndarray]:
    """All served tensors of the file's volume and prompts, window after window."""
    ids, mask = (golden[name].astype(np.int64) for name in ("input_ids", "attention_mask"))
    n_tokens = mask.sum(1).max()
    text_features = runs["text_encoder_3d"](ids[:, :n_tokens], mask[:, :n_tokens])[0]
    collected = defaultdict(list)
    table = networks(variant)
    volume = golden["processed_int"].astype(np.float32)
    for window, image in iterate_windows(volume, window_size, variant.image_size):
        features = runs["image_encoder_3d"](*by_digits(image).values())
        noise = [noise_of(golden, layer)[window.start : window.stop] for layer in range(variant.n_decoder_layers)]
        results = runs["mask_decoder_3d"](*features, text_features, np.zeros(len(ids), np.int64), noise)
        for name, arrays in (("image_encoder_3d", features), ("mask_decoder_3d", results)):
            for spec, array in zip(table[name].outputs, arrays, strict=True):
                collected[spec.name].append(array)
    return {"text_features": text_features} | {name: np.concatenate(arrays) for name, arrays in collected.items()}


def noise_of(golden: Golden, layer: int) -> np.ndarray:
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


def check_outputs(
    golden: Golden,
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
    report.within("object_existence (as probability)", 1 / (1 + np.exp(-existence)), outputs["scores"].T)
    merge = exported_merging(mask_side(variant), variant.image_size) if onnx else in_torch(merging)
    if not onnx:
        shown, _ = merging.shown(torch.from_numpy(outputs["mask_logits"]), torch.from_numpy(outputs["scores"]))
        report.tensor("mask_post", shown.swapaxes(0, 1).numpy())
    report.labels("labels_square", numbered(outputs["label_slices"], golden["ids"]))
    report.labels("labels", to_volume(outputs["label_slices"], golden))
    edges = merge(outputs["edge_logits"], np.ascontiguousarray(existence.T))[0]
    report.labels("edge_labels", to_volume(edges, golden))
    for name in ("instances", "instances_plain"):
        if name in golden:
            report.skipped(name, "not built yet")


def to_volume(label_slices: np.ndarray, golden: Golden) -> np.ndarray:
    axis = int(golden["axis"])
    height, width = np.moveaxis(golden["raw_volume"], axis, 0).shape[1:]
    return np.moveaxis(numbered(from_square(label_slices, height, width), golden["ids"]), 0, axis)
