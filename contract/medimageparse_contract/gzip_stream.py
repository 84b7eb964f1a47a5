"""Files in gzip: no more is unpacked than is asked for, since a small one may hold gigabytes."""

import re
import zlib
from typing import Any, Literal

GZIP = b"\x1f\x8b"
DEFLATE_RATIO = 1032  # no gzip unpacks to more times its bytes than this
CHUNK, PIECE = 2**17, 2**19  # bytes of gzip that are unpacked at a time, and to how many at most
NO_FLAGS = 0xE0  # bits of a member's header that mean nothing; isal passes over them
ZEROS = re.compile(rb"\0*")


class GzipFault(ValueError):
    """What is wrong with the gzip; whoever reads the file says it in his words.

    truncated: it ends too soon; damaged: it cannot be unpacked; changed: its checksum does not fit
    """

    def __init__(self, kind: Literal["truncated", "damaged", "changed"]) -> None:
        super().__init__(kind)
        self.kind = kind


def unpack(data: bytes, n_bytes: int, codec: Any = zlib) -> bytes | bytearray:
    """At most the first `n_bytes` of what is in a file, in gzip or not; several gzip members are one stream.

    What stands behind the member that holds the last of these bytes is not looked at, and its checksum only if they
    are all that is in it. codec: zlib, or a module with the same functions.
    """
    if not data.startswith(GZIP):
        return data
    # one byte more shows whether there is more
    content = bytearray(min(n_bytes, DEFLATE_RATIO * len(data)) + 1)
    n = place = 0
    while n < n_bytes and data.startswith(GZIP, place):
        if any(flags & NO_FLAGS for flags in data[place + 3 : place + 4]):
            raise GzipFault("damaged")
        member = codec.decompressobj(wbits=31)
        while not member.eof and n <= n_bytes:
            packed = data[place : place + CHUNK]
            if not packed:
                raise GzipFault("truncated")
            try:
                piece = member.decompress(packed, min(PIECE, n_bytes + 1 - n))
            except codec.error as error:
                is_checksum = str(error).endswith(("incorrect data check", "incorrect length check"))
                raise GzipFault("changed" if is_checksum else "damaged") from error
            content[n : n + len(piece)] = piece
            n += len(piece)
            place += len(packed) - len(member.unconsumed_tail) - len(member.unused_data)
        zeros = ZEROS.match(data, place)
        place = zeros.end() if zeros else place
    del content[min(n, n_bytes) :]
    return content
