"""What `make export` and `make engines` put into the model repository, and what can be served with it."""

import importlib.util
from pathlib import Path

from medimageparse_contract.models import PUBLIC_MODELS

from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.model_calls import reachable_models
from medimageparse_serving.launch.server_log import say

# What is put into a network's version folder.
BUILT_FILES = {
    "cpu": ("model.onnx",),
    "cpu-bf16": ("model.onnx",),
    "onnxruntime": ("model.onnx",),
    "tensorrt": ("model.plan",),
}
MAKE_TARGET = {"model.plan": "make engines"}
# Without these a processor is slower in bf16 than in fp32.
BF16_INSTRUCTIONS = {"amx_bf16", "avx512_bf16"}


def has_bf16() -> bool:
    """Whether this processor multiplies bf16 matrices."""
    return not BF16_INSTRUCTIONS.isdisjoint(Path("/proc/cpuinfo").read_text().split())


def choose_runtime(runtime: str) -> str:
    """The runtime, or the one that takes its place on this processor; ServeError if it cannot be had."""
    if runtime not in BUILT_FILES:
        raise ServeError(f"there is no runtime {runtime}; choose one of {', '.join(BUILT_FILES)}")
    if runtime == "cpu-bf16" and not has_bf16():
        say("this processor has no instructions for bf16, so all networks run in fp32: RUNTIME=cpu")
        return "cpu"
    if runtime == "cpu-bf16" and not importlib.util.find_spec("openvino"):
        raise ServeError("RUNTIME=cpu-bf16 needs OpenVINO: make openvino")
    return runtime


def check_built_files(repository: Path, models: list[str], runtime: str) -> None:
    """A network is a model with a configuration per runtime; what it runs is built, and never in git."""
    wanted = [f"{m}/1/{name}" for m in models if (repository / m / "configs").is_dir() for name in BUILT_FILES[runtime]]
    wanted += [f"{m}/1/networks.json" for m in models if m in PUBLIC_MODELS]  # what they put beside the callers
    for file in wanted:
        if not (repository / file).exists():
            target = MAKE_TARGET.get(Path(file).name, "make export CHECKPOINT=... (or start: make serve-demo)")
            raise ServeError(f"{file} is missing from the model repository; it is made by: {target}")


def find_built_models(repository: Path, runtime: str) -> tuple[list[str], dict[str, str]]:
    """The public models that can be served, and for each of the others why not; ServeError if there is none."""
    built, left_out = [], {}
    for model in PUBLIC_MODELS:
        try:
            check_built_files(repository, reachable_models(repository, [model]), runtime)
            built.append(model)
        except ServeError as error:
            left_out[model] = str(error)
    if not built:
        raise ServeError(left_out[PUBLIC_MODELS[0]])
    return built, left_out
