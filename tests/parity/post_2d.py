"""Files like v1_post.npz: cases of post-processing in 2D, and of the client's reading of DICOM slices."""

import importlib.util
import json
from collections.abc import Mapping

import numpy as np
from medimageparse_serving.image.recognition import (
    combine,
    existence_p_value,
    mask_statistics,
    suppress,
    two_sided_p_values,
)

from .report import Golden, Report

STATISTICS_TOLERANCE = 1e-7  # the mean probability is a mean in FP32
P_VALUE_TOLERANCE = 1e-9


def check_cases(golden: Golden, report: Report) -> None:
    """All cases of the file; none of them runs a network."""
    info = json.loads(golden["info_json"].tobytes())
    for case in info.get("stats_cases", []):
        check_existence(golden, report, case, info["target_dist"])
    if "ks/x" in golden:
        a, b = golden["ks/ab"].T[..., None]  # each [distributions, 1]
        report.within("ks/p", golden["ks/p"], two_sided_p_values(golden["ks/x"], a, b), tolerance=P_VALUE_TOLERANCE)
    for number, case in enumerate(info.get("merge_cases", [])):
        check_merging(golden, report, f"merge/{number}", case)
    for number, case in enumerate(info.get("intensity_cases", [])):
        check_intensity(golden, report, f"intensity/{number}", case)


def check_existence(golden: Golden, report: Report, case: Mapping, distributions: Mapping) -> None:
    name = f"stats/{case['i']}"
    statistics = mask_statistics(golden[f"{name}/prob"], golden[f"{name}/image"])
    expected = golden[f"{name}/stats"]
    absent = bool(np.isnan(expected).any())
    if absent:
        report.skipped(f"{name}/stats", "NaN in the original; here the target counts as absent")
        expected = np.zeros(4)
    report.within(f"{name}/stats", expected, statistics, tolerance=STATISTICS_TOLERANCE)
    for key, p_value in case["pvalues"].items():
        image_type, target = key.split("/", 1)
        found = existence_p_value(statistics, distributions[image_type][target])
        report.within(f"{name}/pvalues/{key}", 0 if absent else p_value, found, tolerance=P_VALUE_TOLERANCE)


def check_merging(golden: Golden, report: Report, name: str, case: Mapping) -> None:
    maps = {target: golden[f"{name}/prob/{target}"] for target in case["names"]}
    regions = {target: probabilities > 0.5 for target, probabilities in maps.items()}
    order = suppress(regions, dict(zip(case["names"], case["p_values"], strict=True)))
    report.same(f"{name}/nms_order", case["nms_order"], order)
    for kind, targets in (("combined_all", case["names"]), ("combined_after_nms", case["nms_order"])):
        masks = combine({target: maps[target] for target in targets})
        report.same(f"{name}/{kind}", case[kind], list(masks))
        for target, mask in masks.items():
            if target in case[kind]:
                report.within(f"{name}/{kind}/{target}", golden[f"{name}/{kind}/{target}"], mask, tolerance=0)


def check_intensity(golden: Golden, report: Report, name: str, case: Mapping) -> None:
    """The client's reader of DICOM slices."""
    if not all(map(importlib.util.find_spec, ("pydicom", "scipy"))):
        report.skipped(name, "needs pydicom and scipy")
        return
    from medimageparse_client.formats.dicom_slice import DicomSlice, choose_bounds
    from medimageparse_client.formats.grey_slice import scale_to_255

    pixels, site = golden[f"{name}/in"].astype(np.float64), case["site"]
    bounds = choose_bounds(pixels, case["is_CT"], site)
    picture = DicomSlice(scale_to_255(pixels, bounds), bounds, site, False).square()
    report.within(f"{name}/out", golden[f"{name}/out"], picture, tolerance=0)
