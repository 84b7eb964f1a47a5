"""The canary: a tiny volume and a tiny image, made here, that a served model must segment; asked over HTTP."""

import base64
import gzip
import hashlib
import http.client
import json
import struct
import urllib.error
import zlib
from typing import Any

from medimageparse_serving.launch.addresses import open_local

SIDE, SLICES = 48, 3
BACKGROUND, BODY, ORGAN = 0, 110, 170


class CanaryError(Exception):
    """The canary was not segmented; the message says why."""


class NoAnswerError(CanaryError):
    """No answer in time, or the server is too busy to take the request: it may be well."""


def body_slice() -> bytes:
    """A bright disc in a dark one on black: SIDE x SIDE pixels of a byte."""

    def pixel(x: int, y: int) -> int:
        if (x - SIDE * 0.35) ** 2 + (y - SIDE * 0.45) ** 2 < (SIDE * 0.16) ** 2:
            return ORGAN
        return BODY if (x - SIDE / 2) ** 2 + (y - SIDE / 2) ** 2 < (SIDE * 0.45) ** 2 else BACKGROUND

    return bytes(pixel(x, y) for y in range(SIDE) for x in range(SIDE))


def nifti_file() -> bytes:
    """The slice three times, as NIfTI-1 with 8 mm voxels, LAS."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, SIDE, SIDE, SLICES, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)  # one byte a voxel
    struct.pack_into("<8f", header, 76, 1, 8, 8, 8, 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, len(header), 1, 0)  # where the voxels begin; slope and intercept
    header[123] = 2  # millimetres
    struct.pack_into("<2h", header, 252, 0, 1)  # an sform, no qform
    struct.pack_into("<12f", header, 280, -8, 0, 0, 0, 0, 8, 0, 0, 0, 0, 8, 0)
    header[344:348] = b"n+1\0"
    return bytes(header) + body_slice() * SLICES


def png_file() -> bytes:
    """The slice as 8-bit grey."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = body_slice()
    rows = b"".join(b"\0" + pixels[start : start + SIDE] for start in range(0, len(pixels), SIDE))
    head = chunk(b"IHDR", struct.pack(">2I5B", SIDE, SIDE, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def request_of(model: str) -> tuple[dict[str, str], str]:
    """The inputs, and the output that holds the segmentation."""
    if model == "medimageparse_3d":
        image, text, output = nifti_file(), "body", "nifti_file"
        return {"image": base64.b64encode(image).decode(), "text": text, "output": output}, output
    return {"image": base64.b64encode(png_file()).decode(), "text": "liver", "output": "masks"}, "image_features"


def segmentation_digest(model: str, answer: str) -> str:
    """SHA-256 of all label or mask bits in the answer; CanaryError if it is no segmentation of the canary."""
    try:
        content = json.loads(answer)
        data = base64.b64decode(content["data"], validate=True)
        if model == "medimageparse_3d":
            data = gzip.decompress(data)
            whole = struct.unpack_from("<4h", data, 40) == (3, SIDE, SIDE, SLICES)
        else:
            whole = content["shape"] == [1, SIDE, SIDE] and len(data) == SIDE * SIDE
    except (ValueError, KeyError, TypeError, EOFError, OSError, struct.error, zlib.error):
        whole = False
    if not whole:
        raise CanaryError("the answer is no segmentation of it")
    return hashlib.sha256(data).hexdigest()


def segment(http_url: str, model: str, timeout_s: float) -> str:
    """Sends the canary and gives the digest of its segmentation."""
    inputs, output = request_of(model)
    tensors = [{"name": n, "shape": [1], "datatype": "BYTES", "data": [value]} for n, value in inputs.items()]
    body = json.dumps({"inputs": tensors, "outputs": [{"name": output}]}).encode()
    try:
        with open_local(f"http://{http_url}/v2/models/{model}/infer", body, timeout=timeout_s) as response:
            answer: Any = json.load(response)
        [text] = [tensor["data"][0] for tensor in answer["outputs"] if tensor["name"] == output]
    except urllib.error.HTTPError as error:
        kind = NoAnswerError if error.code == 503 else CanaryError
        raise kind(f"the server answered {error.code}") from None
    except TimeoutError:
        raise NoAnswerError(f"there was no answer within {timeout_s:g} s") from None
    except urllib.error.URLError as error:
        slow = isinstance(error.reason, TimeoutError)
        raise (NoAnswerError if slow else CanaryError)("the server cannot be reached") from None
    except (OSError, http.client.HTTPException):
        raise CanaryError("the connection broke") from None
    except (ValueError, KeyError, TypeError, IndexError):
        raise CanaryError("the answer is no segmentation of it") from None
    return segmentation_digest(model, text)
