"""A request as it goes over gRPC: a ModelInferRequest whose large contents are copied once.

Protobuf takes the fields of a message one behind the other, in any order: the contents are put behind a message that
protobuf itself has packed, which would copy each of them three times more.
https://protobuf.dev/programming-guides/encoding/
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from tritonclient.grpc import service_pb2

SERVICE = "/inference.GRPCInferenceService/"  # before the name of a method
Value: TypeAlias = bytes | bytearray | str | bool | int | float
# before each raw content: the number of its field, and that a length follows
RAW_CONTENT = bytes((service_pb2.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2,))


def encode_request(
    model: str, inputs: Mapping[str, Value], outputs: Sequence[str], timeout_s: float, request_id: str
) -> bytes:
    """A ModelInferRequest; every input is one element of the type that its value has."""
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    request.parameters["timeout"].int64_param = microseconds(timeout_s)
    contents: list[bytes | bytearray] = []
    for name, value in inputs.items():
        datatype, pieces = encode_value(value)
        request.inputs.add(name=name, datatype=datatype, shape=[1])
        contents += [RAW_CONTENT, varint(sum(map(len, pieces))), *pieces]
    for name in outputs:
        request.outputs.add(name=name)
    return b"".join((request.SerializeToString(), *contents))


def encode_value(value: Value) -> tuple[str, tuple[bytes | bytearray, ...]]:
    """Triton's type of a value and its bytes there, in pieces."""
    match value:
        case bool():
            return "BOOL", (struct.pack("?", value),)
        case int():
            return "INT32", (struct.pack("<i", value),)
        case float():
            return "FP32", (np.float32(value).tobytes(),)
        case str():
            value = value.encode()
    return "BYTES", (struct.pack("<I", len(value)), value)


def varint(number: int) -> bytes:
    """A length as protobuf writes it: seven bits a byte, the lowest first."""
    pieces = bytearray()
    while number > 127:
        pieces.append(number & 127 | 128)
        number >>= 7
    return bytes((*pieces, number))


def microseconds(seconds: float) -> int:
    """The time-out of a request, as Triton takes it."""
    return math.ceil(seconds * 1e6)
