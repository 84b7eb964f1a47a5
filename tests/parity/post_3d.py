"""Files like v2_post.npz: cases of pre- and post-processing in 3D."""

import json
from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from medimageparse.merging import Merging, non_maximum_suppression
from medimageparse.served_tensors import Dimension, Network, TensorSpec
from medimageparse_contract.slice_axis import choose_slice_axis
from medimageparse_serving.volume.instances import find_instances
from medimageparse_serving.volume.sliding_window import from_square, to_square
from torch import Tensor, nn

from .report import Golden, Report
from .running import Run, in_onnxruntime, in_torch

UNSPECIFIED = {"nms/tie_many": "the original's order of equal scores is arbitrary"}
SLICES, PROMPTS = (Dimension(name, 1, 1, 1) for name in ("slices", "prompts"))


@cache
def exported_merging(grid: int, size: int) -> Run:
    """Merging as a graph of its own."""
    mask_logits = TensorSpec("mask_logits", np.float32, (SLICES, PROMPTS, grid, grid))
    existence, scores = (TensorSpec(name, np.float32, (SLICES, PROMPTS)) for name in ("existence", "scores"))
    label_slices = TensorSpec("label_slices", np.uint8, (SLICES, size, size))
    lost_to = TensorSpec("lost_to", np.uint8, (SLICES, PROMPTS))
    network = Network("merging", (mask_logits, existence), (label_slices, scores, lost_to))
    return in_onnxruntime(Merging(grid, size), network)


class Suppression(nn.Module):
    def forward(self, masks: Tensor, scores: Tensor) -> Tensor:
        stays, _ = non_maximum_suppression(masks, scores, scores >= 0.5)
        return stays


@cache
def exported_suppression(n_pixels: int) -> Run:
    masks = TensorSpec("masks", np.bool_, (SLICES, PROMPTS, n_pixels))
    scores, stays = (TensorSpec(*of, (SLICES, PROMPTS)) for of in (("scores", np.float32), ("stays", np.bool_)))
    return in_onnxruntime(Suppression(), Network("suppression", (masks, scores), (stays,)))


def check_cases(golden: Golden, report: Report, onnx: bool) -> None:
    checks = {"post": check_merging, "nms": check_suppression, "geom": check_geometry, "inst": check_instances}
    for kind, cases in json.loads(str(golden["meta"])).items():
        for case in cases:
            name = f"{kind}/{case['name']}"
            if kind not in checks:
                report.skipped(name, "not built yet")
            elif name in UNSPECIFIED:
                report.skipped(name, UNSPECIFIED[name])
            else:
                checks[kind](golden, report, name, case, onnx)


def check_merging(golden: Golden, report: Report, name: str, case: Mapping, onnx: bool) -> None:
    logits, existence = (
        np.ascontiguousarray(golden[f"{name}/{part}"].astype(np.float32).swapaxes(0, 1))
        for part in ("logits", "existence")
    )
    grid, size = logits.shape[-1], golden[f"{name}/labels"].shape[-1]
    merging = Merging(grid, size)
    if not onnx:
        scores = torch.from_numpy(existence).sigmoid()
        enlarged = (merging.enlarge @ torch.from_numpy(logits) @ merging.enlarge.T).swapaxes(0, 1)
        report.tensor(f"{name}/up_logits", enlarged.numpy())
        shown, _ = merging.shown(torch.from_numpy(logits), scores)
        report.tensor(f"{name}/prob", shown.swapaxes(0, 1).numpy())
        kept, _ = merging.kept(enlarged.swapaxes(0, 1).sigmoid(), scores)
        report.labels(f"{name}/kept", kept.T.numpy())
    merge = exported_merging(grid, size) if onnx else in_torch(merging)
    report.labels(f"{name}/labels", numbered(merge(logits, existence)[0], golden[f"{name}/ids"]))


def check_suppression(golden: Golden, report: Report, name: str, case: Mapping, onnx: bool) -> None:
    masks, scores = golden[f"{name}/masks"].astype(bool), golden[f"{name}/scores"].astype(np.float32)
    masks = masks.reshape(1, len(masks), -1)
    suppress = exported_suppression(masks.shape[-1]) if onnx else in_torch(Suppression())
    stays = suppress(masks, scores[None])[0][0]
    report.same(f"{name}/keep", sorted(golden[f"{name}/keep"].tolist()), np.flatnonzero(stays).tolist())


def check_geometry(golden: Golden, report: Report, name: str, case: Mapping, onnx: bool) -> None:
    volume = golden[f"{name}/vol"]
    axis = choose_slice_axis(list(volume.shape), "auto")
    slices = np.moveaxis(volume, axis, 0)
    height, width = slices.shape[1:]
    report.same(f"{name}/axis", case["axis"], axis)
    report.same(f"{name}/padded_size", case["padded_size"], max(height, width))
    report.labels(f"{name}/int", squares(slices, golden[f"{name}/int"].shape[-1]))
    labels = from_square(golden[f"{name}/labels_square"], height, width)
    report.labels(f"{name}/labels_out", np.moveaxis(labels, 0, axis))


def check_instances(golden: Golden, report: Report, name: str, case: Mapping, onnx: bool) -> None:
    mask, edges = golden[f"{name}/mask"], golden[f"{name}/edge"] > 0
    for expected, parted in (("instances", edges), ("components", np.zeros_like(edges))):
        instances = np.zeros(mask.shape, np.uint16)
        find_instances(mask, parted, instances)
        report.labels(f"{name}/{expected}", instances)


def squares(slices: np.ndarray, size: int) -> np.ndarray:
    """Slices as medimageparse_3d makes them for the network; other than bytes arrive there in float32."""
    slices = slices if slices.dtype == np.uint8 else slices.astype(np.float32)
    return np.stack([to_square(image, size) for image in slices])


def numbered(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Label k -> the k-th id of the request, 0 stays."""
    return np.concatenate([[0], ids]).astype(np.int64)[labels]
