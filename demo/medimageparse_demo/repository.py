"""A copy of the model repository with the demo's graphs in it: what `make demo`, `make serve-demo` and tests serve."""

import argparse
import shutil
from pathlib import Path

from medimageparse.repository_copy import copy_models

from medimageparse_demo import MODEL_REPOSITORY
from medimageparse_demo.vocabulary import write_words

WEIGHTS, WEIGHTS_2D = (Path(__file__).with_name(name) for name in ("weights", "weights_2d"))
DEMO_WEIGHTS = (WEIGHTS, WEIGHTS_2D)
NOT_SERVED = ("*.safetensors", "*.csv")


def demo_repository(destination: Path, *weights: Path) -> Path:
    """Copies the models, without what was built into them, and lays the graphs of `weights` (all) over the copy."""
    copy_models(MODEL_REPOSITORY, destination)
    for folder in weights or DEMO_WEIGHTS:
        shutil.copytree(folder, destination, ignore=shutil.ignore_patterns(*NOT_SERVED), dirs_exist_ok=True)
    if set(weights) <= set(DEMO_WEIGHTS):
        write_words(destination)
    return destination


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("destination", type=Path, help="folder to write the copy to")
    demo_repository(parser.parse_args().destination)


if __name__ == "__main__":
    main()
