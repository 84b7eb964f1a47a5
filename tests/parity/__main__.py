"""Our code against tensors recorded from the original implementation.

FILE is like shared/golden/v2_tiny.npz or v1_tiny.npz (networks, weights under published names) or like v2_post.npz or
v1_post.npz (cases of pre- and post-processing); all sizes are read from it. With --onnx the networks run in ONNX
Runtime, on graphs exported for that file. One line per tensor; the exit status is 0 only if every tensor is within 1e-4
and every label map within 0.05 % of its voxels.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import networks_2d, networks_3d, post_2d, post_3d
from .report import Report


def check_file(path: Path, onnx: bool) -> bool:
    """Whether everything in one file is within the tolerance."""
    with np.load(path, allow_pickle=False) as golden:
        report = Report(golden)
        if "meta" in golden:
            post_3d.check_cases(golden, report, onnx)
        elif "config" in golden:
            networks_3d.check_networks(golden, report, onnx)
        elif "class_text_embeddings" in golden:
            networks_2d.check_networks(golden, report, onnx)
        else:
            post_2d.check_cases(golden, report)
    return report.passed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "parity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
