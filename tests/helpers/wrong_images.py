"""Requests to medimageparse that are the caller's mistake."""

import base64
import struct
import zlib

import numpy as np
from helpers.fuzzed_input import SECRET
from helpers.image_answers import image_file
from PIL import Image
from PIL.PngImagePlugin import PngInfo

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
    "TIFF bomb": image_file(PICTURE, "TIFF", compression="tiff_lzw").replace(b"\x3c\0\0\0", b"\xff\xff\xff\x7f", 1),
    "TIFF of floats": image_file(Image.new("F", (9, 9)), "TIFF"),
    "TIFF cut short": image_file(PICTURE, "TIFF")[:-9],
    "BMP cut short": image_file(PICTURE, "BMP")[:-9],
    "WebP cut short": image_file(PICTURE, "WEBP")[:-9],
    "animated WebP": image_file(PICTURE, "WEBP", save_all=True, append_images=[Image.fromarray(255 - PICTURE)]),
    "DICOM": bytes(128) + b"DICM" + SECRET.encode(),
    "NIfTI": struct.pack("<i", 348) + bytes(340) + b"n+1\0" + SECRET.encode(),
    "gzip": b"\x1f\x8b\x08" + SECRET.encode(),
    "JPEG of empty segments": JPEG[:2] + b"\xff\xe5\0\2" * 2**15 + JPEG[2:],
    "PNG of empty chunks": PNG[:33] + (bytes(4) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))) * 2**15 + PNG[33:],
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
    "tile with image_type": {"tile": np.array([True]), "image_type": b"OCT"},
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
    "text for tile": {"tile": b"true"},
    "two thresholds": {"p_value_threshold": np.float32([0.05, 0.1])},
}
GROUPS = {"image": WRONG_IMAGES, "text": WRONG_TEXTS}
WRONG = {f"{group}: {name}": {group: value} for group, values in GROUPS.items() for name, value in values.items()}
WRONG |= {f"option: {name}": options for name, options in WRONG_OPTIONS.items()}
WRONG |= {f"tensor: {name}": changed for name, changed in WRONG_TENSORS.items()}

REQUEST = {"image": PNG, "text": SECRET.encode()}  # what is changed is wrong, the rest is not
