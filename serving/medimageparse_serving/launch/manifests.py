"""Whether the model repository is of this version, and its built files those of their manifests."""

import json
import subprocess
from pathlib import Path
from typing import Any

from medimageparse_contract.hashing import sha256
from medimageparse_contract.models import PUBLIC_MODELS
from medimageparse_contract.version import VERSION

from medimageparse_serving.launch.launch_errors import ServeError

QUERY = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")


def check_manifests(repository: Path, models: list[str], runtime: str, with_gpu: bool = True) -> None:
    """ServeError if a graph, or with TensorRT a plan, is not what its manifest says, or a step has no code.

    with_gpu: whether an engine is also compared with the GPUs of this machine.
    """
    here = sorted(set(compute_capabilities())) if runtime == "tensorrt" and with_gpu else None
    for model in models:
        if model in PUBLIC_MODELS:
            check_version(read_json(repository / model / "1" / "networks.json", model).get("version"), model)
        is_step = 'backend: "python"' in (repository / model / "config.pbtxt").read_text()
        if is_step and not (repository / model / "1" / "model.py").exists():  # tritonserver would wait for it
            raise ServeError(f"the model.py of {model} is missing from the model repository; copy it again")
        if (repository / model / "configs").is_dir():
            folder = repository / model / "1"
            manifest = read_json(folder / "manifest.json", model)
            if runtime == "tensorrt":
                check_engine(folder, model, manifest, here)
            else:
                compare(folder / "model.onnx", model, manifest.get("graph_sha256"), "make export CHECKPOINT=...")


def read_json(path: Path, model: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise ServeError(f"the {path.name} of {model} is missing or damaged: make export CHECKPOINT=...")
    return content


def check_version(found: object, model: str) -> None:
    """A repository that is mounted into a newer image, say, has configurations and graphs that fit an older one."""
    if found != VERSION:
        maker = f"version {found}" if found else "a version before 0.1.0"
        raise ServeError(
            f"the model repository has {model} of {maker}, and this is version {VERSION}: take the model_repository of "
            f"this version and export into it again (make export CHECKPOINT=...), or start the version that made it"
        )


def compare(path: Path, model: str, expected: object, target: str) -> None:
    try:
        found = sha256(path)
    except OSError as error:
        raise ServeError(f"the {path.name} of {model} cannot be read: {error.strerror}") from None
    if found != expected:
        raise ServeError(
            f"the {path.name} of {model} is not the one in its manifest: it is cut short, was changed or belongs to "
            f"another export; make it again: {target}"
        )


def check_engine(folder: Path, model: str, manifest: dict[str, Any], here: list[str] | None) -> None:
    """An engine runs on the kind of GPU that built it, its manifest says which.

    here: the kinds in this machine; None if that is no question.
    """
    engine = manifest.get("engine")
    if not isinstance(engine, dict):
        raise ServeError(f"the manifest of {model} knows no engine; build it on this GPU: make engines")
    compare(folder / "model.plan", model, engine.get("plan_sha256"), "make engines")
    if here is None:
        return
    name, _, rest = str(engine.get("gpu", "")).partition(", ")
    built_for = rest.partition(", ")[0]
    if not here:
        raise ServeError("RUNTIME=tensorrt needs an NVIDIA GPU, and nvidia-smi finds none here: docker run --gpus all")
    if here != [built_for]:
        raise ServeError(
            f"the engine of {model} was built on {name} (compute capability {built_for}), and this machine's GPU has "
            f"{', '.join(here)}; build it on this one: make engines"
        )


def compute_capabilities() -> list[str]:
    """Those of this machine's GPUs, one after the other; none where there is no driver."""
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return answer.split()
