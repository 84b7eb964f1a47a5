"""The caller's mistake to medimageparse is INVALID_ARGUMENT (HTTP 400) and one sentence; the server lives on."""

import base64
import json
import re
import struct
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.image_answers import image_file
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tritonclient.utils import InferenceServerException

SECRET = "zebrafish-7391"  # in every wrong request: prompt, file content, options
PREFIX = r"^(in ensemble 'medimageparse', )?"
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def png(picture=PICTURE, **options):
    notes = PngInfo()
    notes.add_text("Patient", SECRET)
    return image_file(picture, pnginfo=notes, **options)


def png_of_size(width, height):
    """A header that states a size, and hardly any pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png()[:12].replace(b"IHDR", b"") + header + struct.pack(">I", zlib.crc32(header)) + png()[33:]


def jpeg_of_size(width, height):
    content = image_file(PICTURE, "JPEG", comment=SECRET)
    start = content.index(b"\xff\xc0") + 5
    return content[:start] + struct.pack(">HH", height, width) + content[start + 4 :]


PNG, JPEG = png(), image_file(PICTURE, "JPEG", comment=SECRET)
WRONG_IMAGES = {
    "empty": b"",
    "a text file": b"This is " + SECRET.encode() + b", named image.png.\n",
    "a path": b"images/" + SECRET.encode() + b".png",
    "a data URL": b"data:image/png;base64," + base64.b64encode(PNG),
    "URL-safe base64": base64.urlsafe_b64encode(PNG + b"\xff\xef\xbe"),
    "base64 cut short": base64.b64encode(PNG + b"\0")[:-3],
    "base64 of something else": base64.b64encode(SECRET.encode() * 40),
    "PNG cut short": PNG[: len(PNG) // 2],
    "PNG without its end": PNG[:-12],
    "JPEG cut short": JPEG[: len(JPEG) // 2],
    "PNG header only": PNG[:33],
    "JPEG header only": JPEG[:40],
    "damaged PNG": PNG[:200] + bytes(20) + PNG[220:],
    "no pixels": png_of_size(0, 0),
    "no width": png_of_size(0, 40),
    "PNG bomb": png_of_size(2**31 - 1, 2**31 - 1),
    "many pixels": png_of_size(8192, 8193),
    "long side": png_of_size(8193, 1),
    "JPEG bomb": jpeg_of_size(65535, 65535),
    "animated": png(save_all=True, append_images=[Image.fromarray(255 - PICTURE)]),
    "GIF": image_file(PICTURE, "GIF"),
    "TIFF": image_file(PICTURE, "TIFF"),
    "BMP": image_file(PICTURE, "BMP"),
    "WebP": image_file(PICTURE, "WEBP"),
    "DICOM": bytes(128) + b"DICM" + SECRET.encode(),
    "NIfTI": struct.pack("<i", 348) + bytes(340) + b"n+1\0" + SECRET.encode(),
    "gzip": b"\x1f\x8b\x08" + SECRET.encode(),
    "12-bit JPEG": JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
}
WRONG_TEXTS = {
    "no prompt": b"",
    "only separators": b" & & ",
    "empty prompt": SECRET.encode() + b" & & spleen",
    "too many prompts": b" & ".join([SECRET.encode()] * 65),
    "too many characters": SECRET.encode() * 2000,
    "not UTF-8": SECRET.encode("utf-16"),
}
WRONG_OPTIONS = {
    "image_type": {"image_type": SECRET.encode()},
    "image_type of another spelling": {"image_type": b"CT Abdomen"},
    "image_type not UTF-8": {"image_type": b"\xff" + SECRET.encode()},
    "output": {"output": SECRET.encode()},
    "output of the 3D model": {"output": b"label_map"},
    "output not UTF-8": {"output": b"\xff" + SECRET.encode()},
    "threshold without image_type": {"p_value_threshold": np.float32([0.05])},
    "threshold over 1": {"text": None, "image_type": b"OCT", "p_value_threshold": np.float32([5])},
    "threshold not a number": {"text": None, "image_type": b"OCT", "p_value_threshold": np.float32([np.nan])},
    "too many prompts one by one": {"text": b" & ".join([SECRET.encode()] * 17), "joint": np.array([False])},
}
WRONG_TENSORS = {
    "image left out": {"image": None},
    "neither text nor image_type": {"text": None},
    "misspelt option": {"image_typ": b"OCT"},
    "an option of the 3D model": {"intensity": b"auto"},
    "two images": {"image": np.array([b"1", b"2"], np.object_)},
    "no image element": {"image": np.zeros(0, np.object_)},
    "pixels for an image": {"image": PICTURE},
    "a number for text": {"text": np.zeros(1, np.float32)},
    "text for joint": {"joint": b"false"},
    "two thresholds": {"p_value_threshold": np.float32([0.05, 0.1])},
}
GROUPS = {"image": WRONG_IMAGES, "text": WRONG_TEXTS}
WRONG = {f"{group}: {name}": {group: value} for group, values in GROUPS.items() for name, value in values.items()}
WRONG |= {f"option: {name}": options for name, options in WRONG_OPTIONS.items()}
WRONG |= {f"tensor: {name}": changed for name, changed in WRONG_TENSORS.items()}


def request_with(change):
    inputs = {"image": PNG, "text": SECRET.encode()} | change
    return {name: value for name, value in inputs.items() if value is not None}


def assert_a_sentence(message):
    sentence = re.sub(PREFIX, "", message)
    assert 20 < len(sentence) < 300
    for unwanted in ("\n", "Traceback", 'File "', "/", ".py", "Error", "0x", SECRET):
        assert unwanted not in sentence


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_wrong_request_is_refused_with_a_sentence(infer_image, change, protocol):
    with pytest.raises(InferenceServerException) as refused:
        infer_image(request_with(change), protocol)
    assert refused.value.status() == {"grpc": "StatusCode.INVALID_ARGUMENT", "http": "400"}[protocol]
    assert_a_sentence(refused.value.message())


@pytest.mark.parametrize("image", WRONG_IMAGES)
def test_generate_refuses_a_wrong_image_too(both_models, image):
    sent = {"image": base64.b64encode(WRONG_IMAGES[image]).decode(), "text": SECRET}
    url = f"http://{both_models.http_url}/v2/models/medimageparse/generate"
    headers = {"Content-Type": "application/json"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, json.dumps(sent).encode(), headers), timeout=300)
    with refused.value as answer:
        assert answer.code == 400
        assert_a_sentence(json.load(answer)["error"])


@pytest.mark.parametrize("group", ["image", "text", "option", "tensor"])
def test_the_server_lives_on(infer_image, group):
    good = infer_image({"image": PNG, "text": b"lung"})
    for name, change in WRONG.items():
        if name.startswith(group):
            with pytest.raises(InferenceServerException):
                infer_image(request_with(change))
    again = infer_image({"image": PNG, "text": b"lung"})
    assert np.array_equal(again["image_features"], good["image_features"])


def test_the_most_prompts_that_are_taken(infer_image):
    many = b" & ".join(b"structure %d" % number for number in range(64))
    assert len(infer_image({"image": PNG, "text": many})["text_features"]) == 64
    apart = b" & ".join(b"structure %d" % number for number in range(16))
    assert len(infer_image({"image": PNG, "text": apart, "joint": np.array([False])})["text_features"]) == 16


def test_nothing_of_the_requests_is_in_the_log(infer_image, both_models):
    infer_image({"image": PNG, "text": SECRET.encode()})
    log = Path(both_models.log.name).read_text()
    assert "Started GRPCInferenceService" in log  # it is the whole log
    assert SECRET not in log
