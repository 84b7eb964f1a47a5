"""Copies of the model repository: without what was built into it, and with the configs of other sizes."""

import shutil
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from medimageparse.served_tensors import Dimension, Network, networks
from medimageparse.variants import Variant

BUILT_FILES = ("*.onnx", "*.plan", "*.partial", "manifest.json", "networks.json", "__pycache__")


def copy_models(source: Path, target: Path) -> None:
    """Copies all but built files; target must be new."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*BUILT_FILES))


def copy_repository(source: Path, target: Path, variant: Variant) -> Path:
    """Copies the models and writes the variant's sizes into its networks' configs, for backends that compare them."""
    copy_models(source, target)
    for name, network in networks(variant).items():
        for path in (target / name).rglob("*.pbtxt"):
            path.write_text(resized(path.read_text(), network))
    return target


def resized(config_text: str, network: Network) -> str:
    """A network's config with the dimensions that the table gives its tensors."""
    config = text_format.Parse(config_text, ModelConfig())
    shapes = {spec.name: spec.shape for spec in (*network.inputs, *network.outputs)}
    for tensor in (*config.input, *config.output):
        tensor.dims[:] = [-1 if isinstance(d, Dimension) else d for d in shapes[tensor.name]]
    return text_format.MessageToString(config)
