"""The outputs of one request, taken as what the contract says they are; any other is an OddAnswer."""

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from medimageparse_client.errors import InvalidRequest, OddAnswer

# what reading an answer of a wrong form ends in, here, in tritonclient and in numpy
ODD = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, struct.error),
    *(InvalidRequest, msgspec.MsgspecError),
)
Kind = TypeVar("Kind")


@contextmanager
def odd_answers_refused(name: str) -> Iterator[None]:
    """OddAnswer for whatever goes wrong in the block, which reads the output `name`, or something else so called."""
    try:
        yield
    except OSError:  # some of them are ValueErrors too: no certificate that is trusted
        raise
    except ODD as error:
        reason = f": {error}" if isinstance(error, InvalidRequest | msgspec.MsgspecError) else ""
        raise OddAnswer(
            f"the server's answer is not one of MedImageParse: its {name} cannot be read{reason}"
        ) from error


@dataclass(frozen=True)
class NiftiFile:
    """What an output says that holds a NIfTI file."""

    data: bytes


class Answer:
    """tensors: by name of the output; None for one that is not there"""

    def __init__(self, tensors: Mapping[str, npt.NDArray[Any] | None]) -> None:
        self._tensors = tensors

    def __contains__(self, name: str) -> bool:
        return self._tensors.get(name) is not None

    def tensor(
        self, name: str, dtype: npt.DTypeLike, n_dimensions: int, *, may_be_empty: bool = False
    ) -> npt.NDArray[Any]:
        array = self._tensors.get(name)
        if array is None or not (array.size or may_be_empty):
            raise OddAnswer(f"the server's answer has no {name}")
        if array.dtype != dtype or array.ndim != n_dimensions:
            raise OddAnswer(f"the server's answer has {name} as {array.dtype} {list(array.shape)}")
        return array

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, perhaps none."""
        array = self.tensor(name, np.object_, 1, may_be_empty=True)
        with odd_answers_refused(name):
            return tuple(str(text, "utf-8") for text in array)

    def json(self, name: str, kind: type[Kind]) -> Kind:
        """What the JSON in an output says, as a `kind`; of a field of bytes the text is base64."""
        array = self.tensor(name, np.object_, 1)
        with odd_answers_refused(name):
            return msgspec.json.decode(array.item(), type=kind)
