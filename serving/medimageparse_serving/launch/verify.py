"""Says whether a model store is whole, and fits this version: `medimageparse verify --runtime tensorrt --store DIR`.

Needs no GPU. Kubernetes runs it before the server starts, and a release names the digest that it prints.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from medimageparse_contract.models import PUBLIC_MODELS
from medimageparse_contract.version import VERSION

from medimageparse_serving.launch.built_files import BUILT_FILES, check_built_files, find_built_models
from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.manifests import check_manifests
from medimageparse_serving.launch.model_calls import reachable_models
from medimageparse_serving.launch.model_store import assemble, digest
from medimageparse_serving.launch.server_log import say
from medimageparse_serving.launch.triton_server import REPOSITORY


def parse_arguments(given: Sequence[str] | None, prog: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=prog, description="Says whether a model store is whole, and its digest.")
    parser.add_argument("--runtime", choices=tuple(BUILT_FILES), required=True, help="what is to run the networks")
    parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="holds MODEL/1/FILE")
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help="the code that is to serve it")
    parser.add_argument("--models", default="", help="that must be there, with commas; by default any")
    parser.add_argument("--digest", default="", metavar="HEX", help="fails if the store's is another")
    return parser.parse_args(given)


def verify(store: Path, runtime: str, code: Path, models: Sequence[str] = (), expected: str = "") -> dict[str, str]:
    """What is in it, by name; ServeError if it is not what its manifests or the expected digest say."""
    found = digest(store)
    if expected and found != expected.removeprefix("sha256:").lower():
        raise ServeError(
            "the model store has another digest than this release names: it was changed, is not copied to its end, "
            "or is that of another release"
        )
    with tempfile.TemporaryDirectory(prefix="medimageparse-verify-") as folder:
        repository = assemble(code, store, Path(folder) / "model_repository")
        if models:
            served = list(models)
            check_built_files(repository, reachable_models(repository, served), runtime)
        else:
            served, _ = find_built_models(repository, runtime)
        reached = reachable_models(repository, served)
        check_manifests(repository, reached, runtime, with_gpu=False)
        told = {"version": VERSION, "models": ", ".join(model for model in PUBLIC_MODELS if model in served)}
        manifests = [repository / model / "1" / "manifest.json" for model in reached]
        written = [json.loads(path.read_text()) for path in manifests if path.exists()]
    if runtime == "tensorrt":
        told["engines for"] = ", ".join(sorted({str(manifest["engine"].get("gpu", "?")) for manifest in written}))
    return told | {"digest": found}


def command(words: Sequence[str]) -> int:
    """`medimageparse verify`, where the client is installed too."""
    return main(words[1:], prog="medimageparse verify")


def main(given: Sequence[str] | None = None, prog: str = "python -m medimageparse_serving.launch.verify") -> int:
    """0 if the store is whole and its facts are on standard output; else 1 and a sentence on standard error."""
    options = parse_arguments(given, prog)
    models = tuple(filter(None, options.models.split(",")))
    try:
        told = verify(options.store, options.runtime, options.repository, models, options.digest)
    except ServeError as error:
        say(str(error))
        return 1
    sys.stdout.write("".join(f"{name}: {value}\n" for name, value in told.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
