"""What a hospital, or an attacker, may send: hypothesis strategies of files, base64, prompts, options and tensors."""

import base64
import gzip
import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from helpers.image_answers import image_file
from helpers.tiff_files import rewritten_tag
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from medimageparse_contract.image_formats import FORMATS
from nibabel.nifti1 import Nifti1Extension, Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Header, Nifti2Image
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SECRET = "zebrafish-7391"  # in header texts, comments, prompts and options; may be in no sentence and no log line
TIMES = int(os.environ.get("FUZZ_TIMES", "1"))  # `make fuzz` runs the long form

COUNTS = (0, 1, 2, 3, 4, 7, 8, -1, 12, 10, 5000, 32767, -32768)
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 3.0, 1e-45, 1e-30, 1e30, 3.4e38, -3.4e38, *map(float, ("nan", "inf", "-inf")))
DATA_TYPES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 255, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 99, -1)
KEPT_TYPES = (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64)
numbers = st.sampled_from(NUMBERS) | st.floats(width=32)
counts = st.sampled_from(COUNTS)
affine_rows = st.lists(numbers, min_size=4, max_size=4)

HEADER_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "dim": st.lists(counts, min_size=8, max_size=8)
    | st.lists(st.sampled_from((1, 1, 2, 3, 10, 12)), min_size=7, max_size=7).map(lambda sizes: [3, *sizes]),
    "datatype": st.sampled_from(DATA_TYPES),
    "bitpix": counts,
    "pixdim": st.lists(numbers, min_size=8, max_size=8),
    "vox_offset": st.sampled_from((0, 1, 348, 351, 352, 353, 368, 540, 544, 700, 1e5, 2**24, 2**25, 1e12, -1, -352)),
    "scl_slope": numbers,
    "scl_inter": numbers,
    "qform_code": counts,
    "sform_code": counts,
    **{name: numbers for name in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")},
    **{name: affine_rows for name in ("srow_x", "srow_y", "srow_z")},
    "xyzt_units": st.integers(0, 255),
    "magic": st.sampled_from((b"n+1", b"n+2", b"n+3", b"ni1", b"ni2", b"", b"n+1\0\r\n\x1a\n", b"N+1")),
    "sizeof_hdr": st.sampled_from((348, 540, 0, 349, -1, 1543569408)),
    "intent_code": counts,
    "cal_max": numbers,
    "slice_code": st.integers(0, 255),
}


def draw_cases(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """`count` (times FUZZ_TIMES) different examples, the same ones in every run."""
    count *= TIMES
    found: dict[str, Any] = {}

    @settings(
        max_examples=4 * count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(case: Any) -> None:
        if len(found) < count:
            found.setdefault(fingerprint(case), case)

    collect()
    return list(found.values())


def fingerprint(case: Any) -> str:
    return hashlib.sha256(repr(case).encode()).hexdigest()


def nifti(
    voxels: np.ndarray, version: int = 1, order: str = "<", extension: bytes = b"", fields: dict[str, Any] | None = None
) -> bytes:
    """A NIfTI file with the secret in its texts, and some header fields as no library would write them."""
    header = (Nifti1Header if version == 1 else Nifti2Header)(endianness=order)
    header["descrip"] = header["aux_file"] = header["intent_name"] = SECRET
    header.set_data_dtype(voxels.dtype)
    if extension:
        header.extensions.append(Nifti1Extension("comment", extension))
    image = (Nifti1Image if version == 1 else Nifti2Image)(voxels, np.diag([-1.5, 1, 2, 1]), header)
    content = bytearray(image.to_bytes())
    stored = type(header)(bytes(content[: header.sizeof_hdr]), endianness=order, check=False)
    with np.errstate(all="ignore"):
        for name, value in (fields or {}).items():
            stored[name] = np.asarray(value).astype(stored[name].dtype.newbyteorder(order))
    content[: header.sizeof_hdr] = stored.binaryblock
    return bytes(content)


@st.composite
def voxel_arrays(draw: Callable[..., Any]) -> np.ndarray:
    """Small volumes of every type, some with the values that arithmetic stumbles over."""
    dtype = np.dtype(draw(st.sampled_from(KEPT_TYPES)))
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    values = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 120, shape).astype(dtype)
    for place in draw(st.lists(st.integers(0, values.size - 1), max_size=3)):
        if dtype.kind == "f":
            values.flat[place] = draw(st.sampled_from((*NUMBERS, 1e300))) if dtype.itemsize == 8 else draw(numbers)
        else:
            values.flat[place] = draw(st.sampled_from((np.iinfo(dtype).min, np.iinfo(dtype).max)))
    return values


@st.composite
def nifti_files(draw: Callable[..., Any]) -> bytes:
    """A file whose header lies about anything."""
    names = draw(st.lists(st.sampled_from(sorted(HEADER_FIELDS)), max_size=4, unique=True))
    return nifti(
        draw(voxel_arrays()),
        version=draw(st.sampled_from((1, 1, 2))),
        order=draw(st.sampled_from("<>")),
        extension=draw(st.sampled_from((b"", b"", SECRET.encode() * 3))),
        fields={name: draw(HEADER_FIELDS[name]) for name in names},
    )


@st.composite
def damaged(draw: Callable[..., Any], files: st.SearchStrategy[bytes]) -> bytes:
    """The same file cut, with bits flipped, with bytes lost or added."""
    content = bytearray(draw(files))
    kind = draw(st.sampled_from(("cut", "flip", "flip", "lose", "add", "zero")))
    # most damage where the headers are
    place = min(draw(st.integers(0, 120) | st.integers(0, 400) | st.integers(0, 10**5)), len(content) - 1)
    if kind == "cut":
        del content[place:]
    elif kind == "flip":
        for step in draw(st.lists(st.integers(0, 40), min_size=1, max_size=4)):
            content[(place + step) % len(content)] ^= 1 << draw(st.integers(0, 7))
    elif kind == "lose":
        del content[place : place + draw(st.integers(1, 40))]
    elif kind == "add":
        content[place:place] = draw(st.binary(min_size=1, max_size=40))
    else:
        content[place : place + 20] = bytes(len(content[place : place + 20]))
    return bytes(content)


def in_members(content: bytes, cuts: list[int]) -> bytes:
    """gzip of one part after the other: one file, as bgzip and `cat a.gz b.gz` write it."""
    ends = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    return b"".join(gzip.compress(content[a:b], 1, mtime=0) for a, b in zip(ends, ends[1:], strict=False))


def gzip_with_texts(content: bytes) -> bytes:
    """A gzip header that carries a name, a comment, an extra field and its own checksum."""
    header = b"\x1f\x8b\x08\x1e" + bytes(6) + struct.pack("<H", 4) + b"SE\0\0" + 2 * (SECRET.encode() + b"\0")
    header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
    return header + gzip.compress(content, 1, mtime=0)[10:]


def in_lines(content: bytes) -> bytes:
    return base64.encodebytes(content)


# a file as it may be packed: none of these changes what is in it
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "gzip in members": lambda content: in_members(content, [100, 348, 360, 400]),
    "gzip with an empty member": lambda content: gzip.compress(b"", mtime=0) + gzip.compress(content, mtime=0),
    "gzip with zeros behind": lambda content: gzip.compress(content, mtime=0) + bytes(512),
    "gzip with texts": gzip_with_texts,
    "base64": base64.b64encode,
    "base64 in lines": in_lines,
    "base64 in Windows lines": lambda content: in_lines(content).replace(b"\n", b"\r\n"),
    "base64 with blanks around": lambda content: b" \t\n" + base64.b64encode(content) + b"\r\n ",
    "base64 of gzip": lambda content: base64.b64encode(gzip.compress(content, mtime=0)),
}
# bytes that let base64 use all of its letters, and end in every padding
TAIL = bytes(range(240, 256)) * 3
BROKEN_BASE64: dict[str, Callable[[bytes], bytes]] = {
    "URL-safe": lambda content: base64.urlsafe_b64encode(content + TAIL),
    "without padding": lambda content: base64.b64encode(content + b"\0" * (len(content) % 3 == 0)).rstrip(b"="),
    "too much padding": lambda content: base64.b64encode(content) + b"====",
    "padding in the middle": lambda content: base64.b64encode(content[:100]) + base64.b64encode(content),
    "a wrong letter": lambda content: base64.b64encode(content).replace(b"A", b"*", 1),
    "a NUL": lambda content: base64.b64encode(content) + b"\0",
    "UTF-16": lambda content: base64.b64encode(content).decode().encode("utf-16"),
    "a data URL": lambda content: b"data:application/octet-stream;base64," + base64.b64encode(content),
    "twice": lambda content: base64.b64encode(base64.b64encode(content)),
    "quoted": lambda content: b'"' + base64.b64encode(content) + b'"',
    "hexadecimal": lambda content: content.hex().encode(),
}


@st.composite
def packed(draw: Callable[..., Any], files: st.SearchStrategy[bytes], gzipped: bool = True) -> bytes:
    """In gzip and base64, right or wrong."""
    names = [name for name in PACKED if gzipped or "gzip" not in name]
    pack = draw(st.sampled_from([PACKED[name] for name in names] * 2 + list(BROKEN_BASE64.values())))
    return pack(draw(files))


def any_nifti() -> st.SearchStrategy[bytes]:
    files = nifti_files()
    return st.one_of(files, packed(files), damaged(files), damaged(packed(files)), packed(damaged(files)))


PICTURE_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK")
OTHER_MODES = {"BMP": ("LA", "RGBA", "I;16"), "WEBP": ("1", "LA", "I;16", "P")}  # that Pillow does not write in it
COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")


@st.composite
def picture_files(draw: Callable[..., Any]) -> bytes:
    """Small files of every kind and mode, with texts, EXIF, palettes and transparency."""
    mode, kind = draw(st.sampled_from(PICTURE_MODES)), draw(st.sampled_from(FORMATS))
    height, width = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    values = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 2**16, (height, width, 3)).astype(np.uint16)
    if mode == "I;16":
        picture = Image.fromarray(values[..., 0])
    else:
        picture = Image.fromarray((values >> 8).astype(np.uint8)).convert(mode)
    if kind == "JPEG" and mode not in ("L", "RGB", "CMYK"):
        picture = picture.convert("RGB")
    if kind in ("PNG", "BMP", "WEBP") and mode in ("CMYK", *OTHER_MODES.get(kind, ())):
        picture = picture.convert("RGB")
    options: dict[str, Any] = {}
    exif = draw(st.integers(0, 12))
    if exif:
        tags = Image.Exif()
        tags[0x0112], tags[0x010E] = min(exif, 8) if kind == "TIFF" else exif, SECRET  # libtiff writes no other
        options["exif"] = tags
    if kind == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("Patient", SECRET, zip=draw(st.booleans()))
        if draw(st.booleans()) and picture.mode in ("L", "I;16", "P", "RGB"):
            options["transparency"] = (
                draw(st.binary(min_size=1, max_size=200))
                if picture.mode == "P"
                else (1, 2, 3)
                if picture.mode == "RGB"
                else draw(st.integers(0, 255))
            )
    elif kind == "TIFF":
        options |= {"compression": draw(st.sampled_from(COMPRESSIONS)), "description": SECRET}
    elif kind == "WEBP":
        options["lossless"] = draw(st.booleans())
    elif kind == "JPEG":
        options |= {"comment": SECRET, "progressive": draw(st.booleans()), "quality": draw(st.integers(1, 95))}
        options["subsampling"] = draw(st.integers(0, 2))
    if kind in ("TIFF", "WEBP") and draw(st.booleans()):
        options |= {"save_all": True, "append_images": [picture]}
    return image_file(picture, kind, **options)


@st.composite
def rewritten_chunk(draw: Callable[..., Any]) -> bytes:
    """A PNG whose header, palette or texts say something else, with right checksums."""
    content = image_file(np.zeros((4, 4, 3), np.uint8))
    chunks, place = [], 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    number = draw(st.integers(0, len(chunks) - 1))
    name, data = chunks[number]
    if name == b"IHDR":
        size = st.sampled_from((0, 1, 4, 5, 100, 8192, 8193, 2**16, 2**31 - 1, 2**32 - 1))
        data = struct.pack(">II", draw(size), draw(size)) + bytes(draw(st.integers(0, 16)) for _ in range(5))
    else:
        data = draw(st.binary(max_size=40))
    chunks[number] = (draw(st.sampled_from((name, name, b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"acTL", b"eXIf"))), data)
    if draw(st.booleans()):
        texts = (b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"tRNS", b"gAMA", b"pHYs", b"acTL", b"fcTL", b"fdAT", b"cHRM")
        bomb = SECRET.encode() + b"\0\0" + zlib.compress(bytes(draw(st.sampled_from((10, 2 * 10**6)))))
        chunks.insert(1, (draw(st.sampled_from(texts)), draw(st.binary(max_size=30) | st.just(bomb))))
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def any_picture() -> st.SearchStrategy[bytes]:
    files = picture_files()
    return st.one_of(
        files,
        packed(files, False),
        damaged(files),
        damaged(files),
        rewritten_chunk(),
        rewritten_tag(),
        packed(damaged(files), False),
    )


# texts that somebody's software makes another thing of
PIECES = (
    *("liver", "left kidney", "&", " & ", "&&", "&amp;", "&lt;", "&#38;", "&#x26;", "&#0;", "&#xD800;", "&#x110000;"),
    *("&#", "&#" + "9" * 5000 + ";", "&#x" + "f" * 5000 + ";", "&nbsp;", "&notit;", "\0", "\x07", "\n", "\r", "\t"),
    *("\x1b[31m", "\u200b", "\u202e", "\ufeff", "\ufffd", "\U0010ffff", "e\u0301", "é", "Ã©", "İ", "ß", "肝臓"),
    *("печень", "🫀", "👩\u200d⚕️", "<|endoftext|>", "<|startoftext|>", "'s", "</w>", "%s%n", "{}", "$(id)", SECRET),
)


def any_text() -> st.SearchStrategy[bytes]:
    """Prompts as people paste them and as attackers write them; not all are UTF-8."""
    pasted = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
    written = st.text(max_size=60)
    piece = st.sampled_from(PIECES)
    many = st.tuples(piece, st.sampled_from((2, 17, 64, 65, 500))).map(lambda it: " & ".join([it[0]] * it[1]))
    long = st.tuples(piece, st.sampled_from((100, 4000, 20000))).map(lambda it: (it[0] * it[1])[:40000])
    return st.one_of(pasted, pasted, written, many, long).map(str.encode) | st.binary(max_size=40)
