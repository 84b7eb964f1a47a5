"""Exported graphs: those that are named, or of random weights, made once."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from medimageparse.variants import VARIANTS, Variant

SUFFIXES = {"medimageparse_3d": "", "medimageparse": "_2D"}  # of a variant's name: the same sizes in 3D and 2D
IMAGE_IN_BF16 = "image encoder bf16, rest fp32"


def find_graphs(model: str, options: Namespace, precision: str = "fp32") -> Path:
    """The folder of --graphs with this model; without any, of random weights, exported once and kept in --work."""
    for folder in options.graphs:
        if (folder / model / "1" / "networks.json").exists():
            return folder
    if options.graphs:
        raise SystemExit(f"no folder of --graphs has {model}; name one, or leave the model out")
    name = options.variant + SUFFIXES[model]
    graphs = options.work / f"graphs-{name}-{precision}-seed-{options.seed}"
    if not (graphs / model / "1" / "networks.json").exists():
        command = [sys.executable, "-m", "medimageparse", "export", "--random-weights", str(options.seed)]
        command += ["--variant", name, "--precision", precision, "--repository", str(graphs)]
        subprocess.run(command, check=True)
    return graphs


def graph_of(graphs: Path, network: str) -> Path:
    return graphs / network / "1" / "model.onnx"


def description_of(graphs: Path, model: str) -> dict[str, str]:
    """What export wrote about the graphs of a public model: variant, precision, checkpoint_sha256."""
    return json.loads((graphs / model / "1" / "networks.json").read_text())


def variant_of(graphs: Path, model: str) -> Variant:
    return VARIANTS[description_of(graphs, model)["variant"]]
