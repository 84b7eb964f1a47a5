"""Between numpy arrays and what steps speak of: bytes, texts, JSON."""

import json
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from medimageparse_serving.refused import Refused

PACKAGE = Path(__file__).resolve().parents[1]
LONGEST_CHOICE = 100  # bytes; no choice of an option is as long


class Inputs:
    """The input tensors of a request by name. They lie in shared memory as long as the request does."""

    def __init__(self, request: Any) -> None:
        self.tensors = {tensor.name(): tensor for tensor in request.inputs()}

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def array(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = self.tensors[name].as_numpy()
        return array

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: self.array(name) for name in self.tensors}

    def item(self, name: str) -> Any:
        """The one element of an input; None if the caller left it out."""
        return self.array(name).item() if name in self else None

    def options(self, *names: str) -> dict[str, str]:
        """The named options that the caller sent, as texts; Refused if one is no text."""
        sent = {name: self.item(name)[:LONGEST_CHOICE] for name in names if self.item(name)}
        try:
            return {name: option.decode() for name, option in sent.items()}
        except UnicodeDecodeError as error:
            name = next(name for name, option in sent.items() if option == error.object)
            raise Refused(f"{name} is not UTF-8 text") from None

    def texts(self, name: str) -> list[str]:
        return [text.decode() for text in self.array(name)]

    def json(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.item(name))
        return content


def as_array(value: Any) -> NDArray[Any]:
    """An array as it is; bytes, a text, a dict (JSON) or a list of these as BYTES."""
    if isinstance(value, np.ndarray):
        return value
    values = value if isinstance(value, list) else [value]
    return np.array([as_bytes(value) for value in values], np.object_)


def as_bytes(value: bytes | str | dict[str, Any]) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode()


def as_tensors(values: Mapping[str, Any]) -> list[Any]:
    return [pb_utils.Tensor(name, as_array(value)) for name, value in values.items()]


def place_of(error: BaseException) -> str:
    """Where in our own code it happened, and no more: words can be a patient's, and a traceback has paths."""
    places = [(Path(place.filename), place.lineno) for place in traceback.extract_tb(error.__traceback__)]
    ours = [place for place in places if PACKAGE in place[0].parents or place[0].name == "model.py"]
    file, line = (ours or places)[-1]
    return f"{type(error).__name__} in line {line} of {file.name}"
