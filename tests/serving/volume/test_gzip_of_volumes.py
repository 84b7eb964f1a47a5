"""What a volume's gzip may be like, and what each fault of it is called, whatever reads it."""

import gzip
import random
import struct
import zlib

import pytest
from medimageparse_contract import gzip_stream
from medimageparse_serving.refused import Refused
from medimageparse_serving.volume.nifti_volume import GZIP_FAULTS, unpack

CONTENT = bytes(random.Random(1).choices(range(60), k=3000))
TRUNCATED, DAMAGED, CHANGED = (GZIP_FAULTS[kind] for kind in ("truncated", "damaged", "changed"))
TEXT, HEADER_CHECKSUM, EXTRA, NAME, COMMENT = (1 << bit for bit in range(5))
EXTRA_FIELD = struct.pack("<H", 7) + b"abcdefg"


def member(content=CONTENT, flags=0, fields=b"", *, method=8, level=6, strategy=zlib.Z_DEFAULT_STRATEGY, checksum=None):
    """One gzip member; `checksum` is that of the header where it is not the right one."""
    header = bytes([0x1F, 0x8B, method, flags]) + bytes(6) + fields
    if flags & HEADER_CHECKSUM:
        header += struct.pack("<H", zlib.crc32(header) & 0xFFFF if checksum is None else checksum)
    deflate = zlib.compressobj(level, wbits=-15, strategy=strategy)
    end = struct.pack("<II", zlib.crc32(content), len(content))
    return header + deflate.compress(content) + deflate.flush() + end


def changed(file, place):
    file = bytearray(file)
    file[place] ^= 1
    return bytes(file)


HALVES = (member(CONTENT[:1500]), member(CONTENT[1500:]))
READ = {
    "one member": member(),
    "stored": member(level=0),
    "fixed codes": member(strategy=zlib.Z_FIXED),
    "Huffman codes alone": member(strategy=zlib.Z_HUFFMAN_ONLY),
    "two members": b"".join(HALVES),
    "an empty member first": member(b"") + member(),
    "empty members around": member(b"") * 3 + member() + member(b""),
    "zeros between members": HALVES[0] + bytes(700) + HALVES[1],
    "zeros at the end": member() + bytes(512),
    "text mark": member(flags=TEXT),
    "extra field": member(flags=EXTRA, fields=EXTRA_FIELD),
    "a long extra field": member(flags=EXTRA, fields=struct.pack("<H", 65535) + bytes(65535)),
    "name": member(flags=NAME, fields=b"n\0"),
    "a long name": member(flags=NAME, fields=b"n" * 40_000 + b"\0"),
    "comment": member(flags=COMMENT, fields=b"c\0"),
    "header checksum": member(flags=HEADER_CHECKSUM),
    "all fields": member(flags=31, fields=EXTRA_FIELD + b"n\0c\0"),
    "what follows is no gzip": member() + b"more",
    "a damaged member follows": member() + b"\x1f\x8b" + bytes(40),
    "blocks with gaps": gzip.compress(CONTENT[:100]) + member(CONTENT[100:], level=1),
}
REFUSED = {
    "mark alone": (b"\x1f\x8b", TRUNCATED),
    "half a header": (member()[:7], TRUNCATED),
    "a name without an end": (member(flags=NAME, fields=b"n" * 40)[:40], TRUNCATED),
    "half of it": (member()[:900], TRUNCATED),
    "without its checksum": (member()[:-8], TRUNCATED),
    "without its last byte": (member()[:-1], TRUNCATED),
    "a second member cut": (HALVES[0] + HALVES[1][:-1], TRUNCATED),
    "wrong checksum": (changed(member(), -8), CHANGED),
    "wrong length": (changed(member(), -1), CHANGED),
    "wrong checksum of the first of two": (changed(HALVES[0], -8) + HALVES[1], CHANGED),
    "wrong checksum of the second": (HALVES[0] + changed(HALVES[1], -8), CHANGED),
    "wrong checksum of an empty member": (changed(member(b""), -8) + member(), CHANGED),
    "wrong header checksum": (member(flags=HEADER_CHECKSUM, checksum=7), DAMAGED),
    "wrong header checksum of the second": (
        HALVES[0] + member(CONTENT[1500:], flags=HEADER_CHECKSUM, checksum=7),
        DAMAGED,
    ),
    "another method": (member(method=7), DAMAGED),
    "unknown marks in the header": (member(flags=32), DAMAGED),
    "unknown marks in the second": (HALVES[0] + member(CONTENT[1500:], flags=128), DAMAGED),
    "an unknown kind of block": (member()[:10] + b"\xff" * 400, DAMAGED),
    "a stored block of two lengths": (changed(member(level=0), 11), DAMAGED),
    "a distance before the start": (member()[:10] + bytes([0x4B, 0x04, 0x12, 0x00]) + bytes(8), DAMAGED),
}


def outcome(read, file, n_bytes):
    """What is read, or the sentence of the refusal."""
    try:
        return bytes(read(file, n_bytes))
    except Refused as refusal:
        return str(refusal)


def read_slowly(file, n_bytes):
    """By zlib, which is the judge."""
    try:
        return gzip_stream.unpack(file, n_bytes)
    except gzip_stream.GzipFault as fault:
        raise Refused(GZIP_FAULTS[fault.kind]) from fault


@pytest.mark.parametrize("read", [unpack, read_slowly])
@pytest.mark.parametrize("name", READ)
def test_a_gzip_is_read_as_far_as_it_is_asked_for(name, read):
    for n_bytes in (1, 348, len(CONTENT)):
        assert read(READ[name], n_bytes) == CONTENT[:n_bytes]


@pytest.mark.parametrize("read", [unpack, read_slowly])
@pytest.mark.parametrize("name", REFUSED)
def test_each_fault_of_a_gzip_has_its_sentence(name, read):
    file, sentence = REFUSED[name]
    assert outcome(read, file, len(CONTENT)) == sentence


@pytest.mark.parametrize("name", ["one member", "stored", "fixed codes", "all fields", "two members"])
def test_a_cut_gzip_is_truncated_wherever_it_is_cut(name):
    file = READ[name].rstrip(b"\0")
    for end in range(2, len(file) - 1, 7):
        assert outcome(unpack, file[:end], len(CONTENT) + 1) in (TRUNCATED, CONTENT[:1500]), end


def test_a_fault_beyond_what_is_asked_for_is_not_looked_at():
    for file in (changed(member(), -8), member()[:-9], HALVES[0] + b"\x1f\x8b" + bytes(9)):
        assert unpack(file, 348) == CONTENT[:348]


def test_a_gzip_changed_in_any_bit_is_read_or_refused_as_by_zlib():
    chance = random.Random(2)
    files = [file for file in READ.values() if len(file) < 8000]
    for _ in range(3000):
        file = bytearray(chance.choice(files))
        file[chance.randrange(2, min(len(file), chance.choice((40, 150, 8000))))] ^= 1 << chance.randrange(8)
        n_bytes = chance.choice((348, len(CONTENT), len(CONTENT) + 1))
        assert outcome(unpack, bytes(file), n_bytes) == outcome(read_slowly, bytes(file), n_bytes)
