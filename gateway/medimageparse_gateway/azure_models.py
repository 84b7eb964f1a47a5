"""What the two models take from a row and give back, and which of them a bare /score means."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import pybase64
from medimageparse_client.wire import Value
from medimageparse_contract.image_formats import NAMES, format_of
from medimageparse_contract.models import MODEL_2D, MODEL_3D
from numpy.typing import NDArray

from medimageparse_gateway.azure_forms import Row
from medimageparse_gateway.errors import HttpError

Outputs: TypeAlias = Mapping[str, NDArray[Any]]

GZIP = b"\x1f\x8b"
NIFTI = tuple(struct.pack(order + "i", size) for order in "<>" for size in (348, 540))  # sizes of a header
# the 3D card's decoder reads its file before it is flushed: what fits into Python's file buffer is not there yet
FILE_BUFFER = 128 * 2**10
COMMENT = 0x10  # of gzip's flags
HEADER = 10  # bytes of gzip's header

NO_KIND = f"row 0: image is neither a {NAMES} file nor a NIfTI file; send an image for {{}}, or a volume for {{}}"


def encode_image_answer(outputs: Outputs) -> bytes:
    """A row's answer as JSON: `image_features` is JSON within a string, `text_features` a list even of one."""
    categories = [category.decode() for category in outputs["text_features"]]
    return msgspec.json.encode({"image_features": text_of(outputs, "image_features"), "text_features": categories})


def encode_volume_answer(outputs: Outputs) -> bytes:
    """A row's answer as JSON: `nifti_file` is JSON within a string."""
    return msgspec.json.encode({"nifti_file": lengthen(text_of(outputs, "nifti_file"))})


def text_of(outputs: Outputs, name: str) -> str:
    text: str = outputs[name].item().decode()
    return text


def lengthen(nifti_file: str) -> str:
    """The same with a file of more than FILE_BUFFER bytes."""
    if len(nifti_file) > FILE_BUFFER * 4 / 3 + 100:
        return nifti_file
    file = pad_gzip(pybase64.b64decode(msgspec.json.decode(nifti_file)["data"]), FILE_BUFFER + 1)
    return msgspec.json.encode({"data": pybase64.b64encode(file).decode()}).decode()


def pad_gzip(file: bytes, n_bytes: int) -> bytes:
    """A gzip file of that many bytes or more: blanks as a comment behind its header, which every reader passes over."""
    if len(file) >= n_bytes or file[3]:  # a header with more than the usual is not ours
        return file
    comment = b" " * (n_bytes - len(file) - 1) + b"\0"
    return file[:3] + bytes([COMMENT]) + file[4:HEADER] + comment + file[HEADER:]


@dataclass(frozen=True)
class ScoredModel:
    """How a row goes to a model of Triton and comes back. options: keys of `params` that it takes, with their types."""

    name: str
    output: str  # the value of the input `output`
    outputs: tuple[str, ...]
    options: Mapping[str, type[str] | type[bool] | type[float]]
    encode: Callable[[Outputs], bytes]

    def inputs_of(self, row: Row, options: Mapping[str, Value]) -> dict[str, Value]:
        return {"image": row.image, "text": row.text.encode(), "output": self.output, **options}

    def read_params(self, params: Any) -> dict[str, Value]:
        """What a request asks for besides, if `params` is an object: Azure's clients send anything there."""
        if not isinstance(params, dict):
            return {}
        sent = {name: params[name] for name in self.options if params.get(name) is not None}
        return {name: read_option(name, value, self.options[name]) for name, value in sent.items()}


def read_option(name: str, value: Any, kind: type[str] | type[bool] | type[float]) -> Value:
    if kind is not bool and isinstance(value, int | float) and not isinstance(value, bool):
        return kind(value)  # slice_axis: 2
    if not isinstance(value, kind):
        words = {str: "a string", bool: "true or false", float: "a number"}[kind]
        raise HttpError(400, f"params: {name} is not {words}; send {words}, or leave it out")
    return value


MODELS = {
    MODEL_2D: ScoredModel(
        MODEL_2D,
        "probabilities",
        ("image_features", "text_features"),
        {"image_type": str, "joint": bool, "p_value_threshold": float, "tile": bool},
        encode_image_answer,
    ),
    MODEL_3D: ScoredModel(
        MODEL_3D,
        "nifti_file",
        ("nifti_file",),
        {"intensity": str, "orientation": str, "slice_axis": str},
        encode_volume_answer,
    ),
}


def model_named(deployment: str) -> ScoredModel | None:
    """The model that a deployment's name means, or none: clients go on to send the name that they had on Azure."""
    names = {name.replace("_", ""): model for name, model in MODELS.items()}  # on Azure it is MedImageParse3D
    return names.get(deployment.lower().replace("_", "").replace("-", ""))


def model_of_file(file: bytes) -> ScoredModel:
    """The model for a file of this kind. Raises HttpError."""
    if file.startswith((GZIP, *NIFTI)):
        return MODELS[MODEL_3D]
    if format_of(file):
        return MODELS[MODEL_2D]
    raise HttpError(400, NO_KIND.format(MODEL_2D, MODEL_3D))
