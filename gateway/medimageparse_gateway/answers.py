"""The forms that an answer has: media type -> what the model is asked for, and how the file is made of it.

A new form is a new row. Makers run in a thread.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from medimageparse_client.errors import ServerError
from medimageparse_client.formats.picture import EncodedImage
from medimageparse_client.results import answer
from medimageparse_client.results.image_segmentation import MAX_LABEL, ImageSegmentation, decode_image_answer
from medimageparse_contract.options import MAPS_3D

from medimageparse_gateway.errors import HttpError, TritonError
from medimageparse_gateway.forms import Form
from medimageparse_gateway.triton import SENTENCES, Arrays

EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class Answer:
    """outputs: of the model; make: the bytes of the answer; file: its usual name."""

    outputs: tuple[str, ...]
    make: Callable[[Form, Arrays], bytes]
    file: str

    def made_of(self, form: Form, arrays: Arrays) -> bytes:
        """`make`, with an answer that no model of ours gives as TritonError."""
        try:
            return self.make(form, arrays)
        except (ServerError, KeyError, TypeError, ValueError):
            raise TritonError("internal", SENTENCES["internal"]) from None


def report_of(form: Form, arrays: Arrays) -> bytes:
    report: bytes = arrays["report"].item()
    return report


def nifti_of(output: str, form: Form, arrays: Arrays) -> bytes:
    return base64.b64decode(json.loads(arrays[output].item())["data"], validate=True)


def image_of(form: Form, arrays: Arrays) -> ImageSegmentation:
    """As our client gives it."""
    return decode_image_answer(
        tuple(form.prompts) or None,
        EncodedImage(bytes(form.image)),
        answer.Answer(arrays),
    )


def png_of(form: Form, arrays: Arrays) -> bytes:
    result = image_of(form, arrays)
    if len(result.prompts) > MAX_LABEL:
        raise HttpError(400, f"a PNG holds {MAX_LABEL} labels; ask for fewer, or accept application/x-npz")
    return result.to_bytes(".png")


def npz_of(form: Form, arrays: Arrays) -> bytes:
    return image_of(form, arrays).to_bytes(".npz")


REPORT = Answer(("report",), report_of, "report.json")
IMAGE_OUTPUTS = ("probabilities", "text_features", "report")
FILES = {"nifti_file": "labels", **{f"{name}_file": name for name in (*MAPS_3D, "instances", "uncertainty")}}
# by the output that the form names
VOLUME_FILES = {name: Answer((name,), partial(nifti_of, name), f"{file}.nii.gz") for name, file in FILES.items()}
# the first is the usual one
VOLUME_ANSWERS: Mapping[str, Answer] = {
    "application/gzip": VOLUME_FILES["nifti_file"],
    "application/json": REPORT,
}
IMAGE_ANSWERS: Mapping[str, Answer] = {
    "image/png": Answer(IMAGE_OUTPUTS, png_of, "labels.png"),
    "application/json": REPORT,
    "application/x-npz": Answer(IMAGE_OUTPUTS, npz_of, "masks.npz"),
}
