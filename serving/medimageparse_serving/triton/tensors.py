"""Between numpy arrays and what steps speak of: bytes, texts, dataclasses as JSON."""

import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from medimageparse_serving.refused import Refused

PACKAGE = Path(__file__).resolve().parents[1]
LONGEST_CHOICE = 100  # bytes; no choice of an option is as long

Record = TypeVar("Record")


class Inputs:
    """The input tensors of a request by name, and the outputs it wants.

    They lie in shared memory as long as the request does.
    """

    def __init__(self, request: Any) -> None:
        self.tensors = {tensor.name(): tensor for tensor in request.inputs()}
        self.wanted = set(request.requested_output_names())

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

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """What the caller chose, the first if nothing; Refused if it is none of them."""
        sent = self.item(name) or choices[0].encode()
        chosen = next((choice for choice in choices if choice.encode() == sent[:LONGEST_CHOICE]), None)
        if chosen is None:
            raise Refused(f"{name} is unknown; send one of {', '.join(choices)}, or leave it out")
        return chosen

    def texts(self, name: str) -> list[str]:
        return [text.decode() for text in self.array(name)]

    def record(self, name: str, kind: type[Record]) -> Record:
        """A dataclass that another step has packed."""
        return unpack(kind, json.loads(self.item(name)))


def unpack(kind: type[Record], values: dict[str, Any]) -> Record:
    """What `asdict` made of a dataclass, and of the dataclasses in it."""
    kinds = get_type_hints(kind)

    def value_of(name: str) -> Any:
        return unpack(kinds[name], values[name]) if is_dataclass(kinds[name]) else values[name]

    return kind(**{name: value_of(name) for name in values})


def as_array(value: object) -> NDArray[Any]:
    """An array as it is; bytes, a text, a dataclass (JSON) or a list of these as BYTES."""
    if isinstance(value, np.ndarray):
        return value
    values = value if isinstance(value, list) else [value]
    return np.array([as_bytes(value) for value in values], np.object_)


def as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(asdict(value))).encode()


def as_tensors(values: Mapping[str, object]) -> list[Any]:
    return [pb_utils.Tensor(name, as_array(value)) for name, value in values.items()]


def place_of(error: BaseException) -> str:
    """Where in our own code it happened, and no more: words can be a patient's, and a traceback has paths."""
    places = [(Path(place.filename), place.lineno) for place in traceback.extract_tb(error.__traceback__)]
    ours = [place for place in places if PACKAGE in place[0].parents or place[0].name == "model.py"]
    file, line = (ours or places)[-1]
    return f"{type(error).__name__} in line {line} of {file.name}"
