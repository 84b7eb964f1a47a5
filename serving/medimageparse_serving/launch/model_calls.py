"""Which models call which, as their config.pbtxt say."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from medimageparse_contract.models import PUBLIC_MODELS, STREAMS

from medimageparse_serving.launch.launch_errors import ServeError


def called_models(config: str) -> list[str]:
    """The models that a config.pbtxt names: an ensemble's steps, and the `*_model` parameters of BLS callers."""
    steps = re.findall(r'model_name:\s*"(\w+)"', config)
    return steps + re.findall(r'key:\s*"\w+_model"\s*value:?\s*\{\s*string_value:\s*"(\w+)"', config)


def with_streams(repository: Path, models: Iterable[str]) -> list[str]:
    """The models, and their decoupled twins that the repository has."""
    models = list(models)
    streams = [STREAMS[model] for model in models if model in STREAMS]
    return models + [stream for stream in streams if (repository / stream).is_dir() and stream not in models]


def reachable_models(repository: Path, models: list[str]) -> list[str]:
    """The models, their streams and all that they call, callers first. Triton does not load what only BLS reaches."""
    found: list[str] = []
    queue = with_streams(repository, models)
    while queue:
        model = queue.pop(0)
        config = repository / model / "config.pbtxt"
        if not config.exists():
            raise ServeError(f"there is no model {model} in the repository; MODELS={','.join(PUBLIC_MODELS)}")
        if model not in found:
            found.append(model)
            queue += called_models(config.read_text())
    return found


def own_models(repository: Path, models: Sequence[str]) -> dict[str, set[str]]:
    """Each model with those that it calls and none of the others does."""
    reached = {model: set(reachable_models(repository, [model])) for model in models}
    return {model: reached[model].difference(*(reached[m] for m in models if m != model)) for model in models}
