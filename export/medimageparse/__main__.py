"""python -m medimageparse {export,engines,download}: published weights to served graphs and engines."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from medimageparse.errors import ExportError
from medimageparse.variants import MODELS, PUBLISHED, VARIANTS

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="medimageparse", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    export = commands.add_parser(
        "export", help="write model.onnx of a model's three networks, each compared with PyTorch"
    )
    weights = export.add_mutually_exclusive_group(required=True)
    weights.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="biomedparse_v2.ckpt, biomedparse_v1.pt, a fine-tuned state dict (torch, .safetensors) or its folder",
    )
    weights.add_argument("--random-weights", type=int, metavar="SEED", help="no checkpoint: for benchmarks and tests")
    export.add_argument("--variant", choices=VARIANTS, default=PUBLISHED.name, help="sizes of random weights")
    export.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    export.add_argument(
        "--repository", type=Path, default=REPOSITORY, metavar="DIR", help="where the graphs are served from"
    )
    export.add_argument(
        "--repository-copy",
        type=Path,
        metavar="DIR",
        help="write to a new copy of the repository whose network configs carry the sizes of the weights: "
        "for other than the published sizes under TensorRT or the ONNX Runtime backend",
    )
    export.add_argument(
        "--check-engine",
        action="store_true",
        help="then build an engine of each graph with NVIDIA's compiler, for SM80 and on this machine's CPU: "
        "does it take the graph? Nothing is run (needs tensorrt-rtx-cu13, which the extra test brings)",
    )

    engines = commands.add_parser(
        "engines", help="build model.plan from model.onnx and compare the two, on the serving GPU"
    )
    engines.add_argument("--repository", type=Path, default=REPOSITORY, metavar="DIR")

    download = commands.add_parser("download", help="fetch a published checkpoint from Hugging Face")
    download.add_argument("--model", choices=MODELS, default="medimageparse_3d", help="which public model it is for")
    download.add_argument("--folder", type=Path, default=Path("."), metavar="DIR", help="where to put the file")
    return parser.parse_args(arguments)


def export(options: argparse.Namespace) -> None:
    from medimageparse_contract.hashing import sha256

    from medimageparse.checkpoint import load_networks
    from medimageparse.checkpoint_files import read_checkpoint, weights_file
    from medimageparse.export_onnx import export_networks
    from medimageparse.networks import build_random
    from medimageparse.repository_copy import copy_repository

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns about what it does not export
    if options.checkpoint is None:
        variant = VARIANTS[options.variant]
        modules, source = (
            build_random(variant, options.random_weights),
            f"random weights, seed {options.random_weights}",
        )
    else:
        checkpoint = weights_file(options.checkpoint)
        tensors, variant = read_checkpoint(checkpoint)
        modules, source = load_networks(tensors, variant), sha256(checkpoint)
    repository = options.repository
    if options.repository_copy is not None:
        repository = copy_repository(repository, options.repository_copy, variant)
    export_networks(modules, variant, source, repository, options.precision)
    if options.check_engine:
        from medimageparse.check_engine import check_engines

        check_engines(repository, variant)


def engines(options: argparse.Namespace) -> None:
    from medimageparse.build_engine import build_engines

    build_engines(options.repository)


def download(options: argparse.Namespace) -> None:
    from medimageparse.download import download_checkpoint

    download_checkpoint(options.model, options.folder)


COMMANDS = {"export": export, "engines": engines, "download": download}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    logging.basicConfig(format="%(message)s", level=logging.ERROR)
    logging.getLogger("medimageparse").setLevel(logging.INFO)
    try:
        COMMANDS[options.command](options)
    except ModuleNotFoundError as error:
        return _fail(options, f"needs the package {error.name}; install the extra: pip install '.[export]'")
    except (ExportError, OSError) as error:
        return _fail(options, str(error))
    return 0


def _fail(options: argparse.Namespace, sentence: str) -> int:
    print(f"medimageparse {options.command}: {sentence}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
