"""Images to send to `medimageparse`, and its answers as arrays."""

import base64
import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def image_file(picture: Image.Image | NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """A picture as the content of a file."""
    content = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(content, kind, **options)
    return content.getvalue()


def maps_of(answer: dict[str, Any]) -> NDArray[np.uint8]:
    """`image_features` [P,H,W], read as the published client reads it."""
    found = json.loads(answer["image_features"].item())
    return np.frombuffer(base64.b64decode(found["data"]), dtype=found["dtype"]).reshape(found["shape"])


def report_of(answer: dict[str, Any]) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(answer["report"].item())
    return report


def categories_of(answer: dict[str, Any]) -> list[str]:
    return [category.decode() for category in answer["text_features"]]
