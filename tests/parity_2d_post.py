"""Post-processing of MedImageParse 2D against cases recorded from the original, for tests/parity.py.

Files like shared/golden/v1_post.npz; names, sizes and distributions are read from the file.
"""

import importlib.util
import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from medimageparse_serving.image.recognition import (
    combine,
    existence_p_value,
    mask_statistics,
    suppress,
    two_sided_p_values,
)

STATISTICS_TOLERANCE = 1e-7  # the mean probability is a mean in FP32
P_VALUE_TOLERANCE = 1e-9


class Report(Protocol):
    """What is used of the report of tests/parity.py."""

    def same(self, name: str, expected: object, found: object) -> None: ...
    def skipped(self, name: str, reason: str) -> None: ...
    def line(self, name: str, shape: tuple[int, ...], error: float, tolerance: float, text: str) -> None: ...


def check_post(golden: Mapping[str, np.ndarray], report: Report) -> None:
    """All cases of the file; none of them runs a network."""
    info = json.loads(golden["info_json"].tobytes())
    for case in info.get("stats_cases", []):
        check_existence(golden, report, case, info["target_dist"])
    if "ks/x" in golden:
        a, b = golden["ks/ab"].T[..., None]  # each [distributions, 1]
        within(report, "ks/p", golden["ks/p"], two_sided_p_values(golden["ks/x"], a, b), P_VALUE_TOLERANCE)
    for number, case in enumerate(info.get("merge_cases", [])):
        check_merging(golden, report, f"merge/{number}", case)
    for number, case in enumerate(info.get("intensity_cases", [])):
        check_intensity(golden, report, f"intensity/{number}", case)


def within(report: Report, name: str, expected: Any, found: Any, tolerance: float) -> None:
    expected, found = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    error = np.abs(found - expected).max(initial=0) if found.shape == expected.shape else np.inf
    report.line(name, expected.shape, error, tolerance, f"{error:.2e}")


def check_existence(golden: Mapping[str, np.ndarray], report: Report, case: Mapping, distributions: Mapping) -> None:
    name = f"stats/{case['i']}"
    statistics = mask_statistics(golden[f"{name}/prob"], golden[f"{name}/image"])
    expected = golden[f"{name}/stats"]
    absent = bool(np.isnan(expected).any())
    if absent:
        report.skipped(f"{name}/stats", "NaN in the original; here the target counts as absent")
        expected = np.zeros(4)
    within(report, f"{name}/stats", expected, statistics, STATISTICS_TOLERANCE)
    for key, p_value in case["pvalues"].items():
        image_type, target = key.split("/", 1)
        found = existence_p_value(statistics, distributions[image_type][target])
        within(report, f"{name}/pvalues/{key}", 0 if absent else p_value, found, P_VALUE_TOLERANCE)


def check_merging(golden: Mapping[str, np.ndarray], report: Report, name: str, case: Mapping) -> None:
    maps = {target: golden[f"{name}/prob/{target}"] for target in case["names"]}
    regions = {target: probabilities > 0.5 for target, probabilities in maps.items()}
    order = suppress(regions, dict(zip(case["names"], case["p_values"], strict=True)))
    report.same(f"{name}/nms_order", case["nms_order"], order)
    for kind, targets in (("combined_all", case["names"]), ("combined_after_nms", case["nms_order"])):
        masks = combine({target: maps[target] for target in targets})
        report.same(f"{name}/{kind}", case[kind], list(masks))
        for target, mask in masks.items():
            if target in case[kind]:
                within(report, f"{name}/{kind}/{target}", golden[f"{name}/{kind}/{target}"], mask, 0)


def check_intensity(golden: Mapping[str, np.ndarray], report: Report, name: str, case: Mapping) -> None:
    """The client's reader of DICOM slices."""
    if not all(map(importlib.util.find_spec, ("pydicom", "scipy"))):
        report.skipped(name, "needs pydicom and scipy")
        return
    from medimageparse_client.formats.dicom_slice import DicomSlice, choose_bounds, scale_to_255

    pixels, site = golden[f"{name}/in"].astype(np.float64), case["site"]
    bounds = choose_bounds(pixels, case["is_CT"], site)
    picture = DicomSlice(scale_to_255(pixels, bounds), bounds, site, False).square()
    within(report, f"{name}/out", golden[f"{name}/out"], picture, 0)
