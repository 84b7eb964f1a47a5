"""Asks a served model over HTTP to segment the canary: a tiny volume or image."""

import base64
import gzip
import hashlib
import http.client
import io
import json
import urllib.error
import zlib
from typing import Any

import nibabel as nib
import numpy as np
from medimageparse_contract.canary import PROMPT_2D, PROMPT_3D, SIDE, SLICES, SPACING_MM, canary_slice
from medimageparse_contract.models import MODEL_3D
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from PIL import Image

from medimageparse_serving.launch.addresses import open_local


class CanaryError(Exception):
    """The canary was not segmented; the message says why."""


class NoAnswerError(CanaryError):
    """No answer in time, or the server is too busy to take the request: it may be well."""


def picture() -> NDArray[np.uint8]:
    """[row, column]"""
    return np.frombuffer(canary_slice(), np.uint8).reshape(SIDE, SIDE)


def nifti_file() -> bytes:
    """The slice SLICES times, as NIfTI-1, LAS."""
    volume = np.repeat(picture().T[..., None], SLICES, axis=2)  # x, y, z
    data: bytes = nib.Nifti1Image(volume, np.diag([-SPACING_MM, SPACING_MM, SPACING_MM, 1])).to_bytes()
    return data


def png_file() -> bytes:
    """The slice as 8-bit grey."""
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "png")
    return file.getvalue()


def request_of(model: str) -> tuple[dict[str, str], str]:
    """The inputs, and the output that holds the segmentation."""
    if model == MODEL_3D:
        image, text, output, answer = nifti_file(), PROMPT_3D, "nifti_file", "nifti_file"
    else:
        image, text, output, answer = png_file(), PROMPT_2D, "masks", "image_features"
    return {"image": base64.b64encode(image).decode(), "text": text, "output": output}, answer


def segmentation_digest(model: str, answer: str) -> str:
    """SHA-256 of all label or mask bits in the answer; CanaryError if it is no segmentation of the canary."""
    try:
        content = json.loads(answer)
        data = base64.b64decode(content["data"], validate=True)
        if model == MODEL_3D:
            labels = nib.Nifti1Image.from_bytes(gzip.decompress(data))
            data, whole = np.asanyarray(labels.dataobj).tobytes(), labels.shape == (SIDE, SIDE, SLICES)
        else:
            whole = content["shape"] == [1, SIDE, SIDE] and len(data) == SIDE * SIDE
    except (ValueError, KeyError, TypeError, EOFError, OSError, HeaderDataError, ImageFileError, zlib.error):
        whole = False
    if not whole:
        raise CanaryError("the answer is no segmentation of it")
    return hashlib.sha256(data).hexdigest()


def segment(http_url: str, model: str, timeout_s: float, inner_key: str = "") -> str:
    """Sends the canary and gives the digest of its segmentation; the key opens a server that is not open yet, and
    has all networks compute anew.
    """
    inputs, output = request_of(model)
    tensors = [{"name": n, "shape": [1], "datatype": "BYTES", "data": [value]} for n, value in inputs.items()]
    request = {"inputs": tensors, "outputs": [{"name": output}], "parameters": {"inner_key": inner_key}}
    body = json.dumps(request).encode()
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
