"""The answers of rows -> the response, as large as they are: written in pieces, gzipped if that was asked for."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence

from starlette.responses import StreamingResponse

PIECE = 2**20  # bytes written at once
GZIP_LEVEL = 1  # probabilities shrink tenfold at any level


def list_response(opening: bytes, answers: Sequence[bytes], closing: bytes, *, gzipped: bool) -> StreamingResponse:
    """A JSON list of these objects between two texts."""
    parts = [opening]
    for answer in answers:
        parts += [answer, b","]
    parts[-1:] = [closing] if answers else [opening, closing]
    headers = {"vary": "accept-encoding"}
    if gzipped:
        headers["content-encoding"] = "gzip"
    else:
        headers["content-length"] = str(sum(map(len, parts)))
    content = gzip_pieces(parts) if gzipped else plain_pieces(parts)
    return StreamingResponse(content, media_type="application/json", headers=headers)


def pieces_of(parts: Sequence[bytes]) -> Iterator[memoryview]:
    for part in parts:
        for start in range(0, len(part), PIECE):
            yield memoryview(part)[start : start + PIECE]


async def plain_pieces(parts: Sequence[bytes]) -> AsyncIterator[memoryview]:
    for piece in pieces_of(parts):
        yield piece


async def gzip_pieces(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(GZIP_LEVEL, wbits=31)
    for piece in pieces_of(parts):
        yield await asyncio.to_thread(packer.compress, piece)
    yield packer.flush()
