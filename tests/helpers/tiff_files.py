"""TIFF files written tag by tag, for kinds that Pillow does not write and for wrong ones."""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, SAMPLES, ROWS, STRIP_BYTES = (
    *(256, 257, 258, 259, 262, 273, 277, 278, 279),
)
KIND_OF_PAGE, DESCRIPTION, ORIENTATION, PLANES, COLOURS, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA, FORMAT = (
    *(254, 270, 274, 284, 320, 322, 323, 324, 325, 338, 339),
)
EXIF = 34665
LONGS = {STRIPS, STRIP_BYTES, TILES, TILE_BYTES, EXIF, KIND_OF_PAGE}
Tags = Mapping[int, Sequence[int] | bytes]


def directory(tags: Tags, place: int, order: str, following: int = 0) -> bytes:
    """The directory of a page, which lies at `place`, and behind it what does not fit into it."""
    entries, behind = b"", b""
    end = place + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        kind = 2 if isinstance(values, bytes) else 4 if tag in LONGS or max(values) > 0xFFFF else 3
        form = {2: "B", 3: "H", 4: "I"}[kind]
        content = struct.pack(f"{order}{len(values)}{form}", *values)
        if len(content) > 4:
            content, behind = struct.pack(f"{order}I", end + len(behind)), behind + content
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + content.ljust(4, b"\0")
    return struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following) + behind


def tiff(strips: Sequence[bytes], tags: Tags, order: str = "<", more_pages: Sequence[Tags] = ()) -> bytes:
    """A file of these strips, or with TILE_WIDTH tiles, and these tags; further pages have the same pixels."""
    places = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    where, how_long = (TILES, TILE_BYTES) if TILE_WIDTH in tags else (STRIPS, STRIP_BYTES)
    stored = {where: places, how_long: [len(strip) for strip in strips]}
    pages, content = [{**stored, **tags}, *({**stored, **tags, **page} for page in more_pages)], b"".join(strips)
    start = 8 + len(content)
    for number, page in enumerate(pages):
        here = 8 + len(content)
        length = len(directory(page, here, order))
        content += directory(page, here, order, here + length if number + 1 < len(pages) else 0)
    return (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start) + content


def tiff_of(array: NDArray[Any], changes: Tags | None = None, order: str = "<", **options: Any) -> bytes:
    """Of one strip: `array` [H,W] or [H,W,samples] of integers or floats; 0 is black. `changes`: of its tags."""
    height, width, samples = (*array.shape, 1)[:3]
    stored = array.astype(array.dtype.newbyteorder(order))
    tags: dict[int, Sequence[int] | bytes] = {
        WIDTH: [width],
        HEIGHT: [height],
        BITS: [8 * array.dtype.itemsize] * samples,
        COMPRESSION: [1],
        PHOTOMETRIC: [2 if samples > 2 else 1],
        SAMPLES: [samples],
        ROWS: [height],
        FORMAT: [{"u": 1, "i": 2, "f": 3}[array.dtype.kind]] * samples,
    }
    return tiff([stored.tobytes()], {**tags, **(changes or {})}, order, **options)


@st.composite
def rewritten_tag(draw: Callable[..., Any]) -> bytes:
    """A small TIFF, some of whose tags are lost or say something else."""
    array = np.random.default_rng(draw(st.integers(0, 3))).integers(0, 255, (6, 9), np.uint8)
    odd = st.sampled_from((0, 1, 2, 3, 5, 6, 7, 8, 9, 16, 255, 999, 32773, 65535, 65536, 2**31 - 1, 2**32 - 1))
    names = (WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, SAMPLES, ROWS, STRIP_BYTES, ORIENTATION, PLANES,
             COLOURS,
             TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA, FORMAT, EXIF, 34853, 347, 530, 700)  # fmt: skip
    values = st.lists(odd, min_size=1, max_size=4) | st.binary(min_size=1, max_size=9)
    changes = draw(st.dictionaries(st.sampled_from(names), values, max_size=3))
    return tiff_of(array, changes, draw(st.sampled_from("<>")))
