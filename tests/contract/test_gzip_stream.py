"""No more is unpacked than is asked for."""

import gzip

import pytest
from medimageparse_contract.gzip_stream import GzipFault, unpack

CONTENT = bytes(range(256)) * 200


@pytest.mark.parametrize("n_bytes", [0, 1, 4, 20_000, len(CONTENT), len(CONTENT) + 9])
@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(CONTENT),
        gzip.compress(CONTENT[:300]) + gzip.compress(CONTENT[300:]),
        gzip.compress(CONTENT[:300]) + bytes(700) + gzip.compress(CONTENT[300:]) + bytes(512),
    ],
    ids=["one member", "two members", "zeros between"],
)
def test_the_first_bytes_of_a_stream(data, n_bytes):
    assert unpack(data, n_bytes) == CONTENT[:n_bytes]


def test_what_is_not_in_gzip_is_as_it_is():
    assert unpack(CONTENT, 5) is CONTENT


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (gzip.compress(CONTENT)[:-1], "truncated"),
        (gzip.compress(CONTENT)[:40], "truncated"),
        (b"\x1f\x8b", "truncated"),
        (gzip.compress(CONTENT)[:-8] + bytes(8), "changed"),
        (gzip.compress(CONTENT)[:-4] + bytes(4), "changed"),
        (b"\x1f\x8b" + bytes(40), "damaged"),
        (gzip.compress(CONTENT)[:20] + b"\xff" * 400, "damaged"),
    ],
)
def test_what_is_wrong_has_a_kind(data, kind):
    with pytest.raises(GzipFault) as caught:
        unpack(data, len(CONTENT) + 1)
    assert caught.value.kind == kind
