"""Requests that are no HTTP, or lie about themselves: no status of 500 or more, no memory, and the next is right."""

import gc
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.fuzzed_input import SECRET, draw_cases
from helpers.gateway import FakeModels, memory_bytes, running_gateway
from hypothesis import strategies as st
from medimageparse_gateway import connections, linger
from medimageparse_gateway.errors import FAULT

N_CASES = 300
MOST_GROWTH = 2**25  # bytes
PATHS = ("/v1/volumes", "/v1/images", "/score", "/medimageparse_3d/score", "/invocations", "/v1/structures", "/", "*")
FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
JSON = b"Content-Type: application/json\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'

# one wrong thing each; what is drawn changes with the code, since hypothesis reads constants in it
PLAIN = (
    b"nonsense\r\n\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"PUT /v1/volumes HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    b"POST /v1/volumes HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
)

paths = st.sampled_from(PATHS)
methods = st.sampled_from(("POST", "POST", "POST", "GET", "PUT", "post", "CONNECT", "TRACE", "PRI", SECRET, ""))
versions = st.sampled_from(("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1", "http/1.1", "FTP/1.1", ""))
bodies = st.one_of(
    st.binary(max_size=100),
    st.sampled_from((b"[", b'{"a":', b'{"input_data":{"data":[', b'{"input_data":')).map(
        lambda opening: opening * 100_000
    ),
    st.sampled_from(
        (b'{"params":NaN}', b"[1e999]", b'{"input_data":{"columns":["image","text"],"data":[["",""]]}}', b"\xff")
    ),
    st.binary(max_size=300).map(lambda content: PART + content + b"\r\n--b--\r\n"),
    st.binary(max_size=300).map(lambda content: PART + content),
    st.integers(1, 3000).map(lambda n: (PART + b"x\r\n") * n),
    st.integers(1, 3000).map(lambda n: b"--b\r\n" + b"X: y\r\n" * n),
)
lengths = st.sampled_from(
    ("-1", "+5", "5, 6", "5, 5", "0x10", "1e3", "99999999999999999999999", "", " 7 ", "٣", "0", "7", "1000")
)
encodings = st.sampled_from(
    ("chunked", "Chunked", "chunked, chunked", "gzip, chunked", "identity", "xchunked", "chunked\t", "gzip", ",chunked")
)
chunk_sizes = st.sampled_from((b"5", b"-5", b"0x5", b"F" * 16, b"f" * 17, b"5;" + b"e" * 5000, b"", b"g", b"5 ", b"05"))
chunk_ends = st.sampled_from((b"\r\n", b"\n", b""))
chunk = st.tuples(chunk_sizes, st.just(b"\r\n"), st.sampled_from((b"hello", b"hell", b"hello!", b"")), chunk_ends)
chunks = st.lists(chunk.map(b"".join), max_size=5).map(lambda pieces: b"".join(pieces) + b"0\r\n\r\n")
odd_headers = st.lists(
    st.sampled_from(
        (
            b"X: " + b"y" * 70_000,
            b"Y: " + b"z" * 1000,
            b"A" * 70_000 + b": b",
            b"no colon",
            b": no name",
            b"two words: x",
            b"X: a\0b",
            b"X: \xff\xfe",
            b" folded: x",
            b"Host: b",
            b"Expect: 100-continue",
            b"Expect: nonsense",
            b"Upgrade: websocket\r\nConnection: Upgrade",
            b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings",
            b"Authorization: Bearer " + SECRET.encode(),
            b"Accept: " + b"a/b;q=" * 3000,
            b"Accept: ;;;,,,;q=;q",
            b"Content-Encoding: gzip",
            b"x-request-id: " + SECRET.encode() * 20,
            b"x-ms-client-request-id: \xff",
            b"Range: bytes=0-",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        )
    ).map(lambda header: header + b"\r\n"),
    max_size=3,
).map(b"".join)


@st.composite
def requests(draw):
    """The bytes of one request, wrong somewhere; at times cut short."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    line = " ".join((draw(methods), draw(paths), draw(versions))).encode()
    head = line + b"\r\nHost: a\r\n" + draw(st.sampled_from((FORM, JSON, b""))) + draw(odd_headers)
    body = draw(bodies)
    match draw(st.integers(0, 3)):
        case 0:
            head += b"Content-Length: " + draw(lengths).encode() + b"\r\n"
        case 1:
            head, body = head + b"Transfer-Encoding: " + draw(encodings).encode() + b"\r\n", draw(chunks)
        case 2:
            head += b"Content-Length: " + str(len(body) + draw(st.sampled_from((0, 0, 1, 5000, -1)))).encode() + b"\r\n"
    whole = head + b"\r\n" + body
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole


@pytest.fixture(scope="module")
def hasty():
    with (
        pytest.MonkeyPatch.context() as patch,
        running_gateway(FakeModels(), header_timeout_s=0.2, pause_timeout_s=0.2, body_timeout_s=1) as gateway,
    ):
        patch.setattr(connections, "LOOK_EVERY", 1)
        patch.setattr(linger, "LINGER_S", 0.1)
        yield gateway


def talk(gateway, request):
    """What comes back until the gateway ends the connection."""
    with gateway.connect() as connection:
        answer = b""
        try:
            connection.sendall(request)
            while piece := connection.recv(2**16):
                answer += piece
        except ConnectionError:
            pass
        return answer


def statuses(answer):
    """Of all answers on a connection."""
    return [int(piece[:3]) for piece in answer.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.slow
def test_malformed_requests_are_refused_and_leave_nothing_behind(hasty, volume_file, caplog):
    cases = [*PLAIN, *draw_cases(requests(), N_CASES)]
    assert len(set(cases)) >= N_CASES
    form = {"files": {"image": volume_file}, "data": {"prompt": ["liver"]}, "headers": {"accept": "application/json"}}
    right = hasty.http.post("/v1/volumes", **form)
    with ThreadPoolExecutor(16) as pool:

        def round_of(cases):
            return list(pool.map(talk, itertools.repeat(hasty), cases))

        round_of(cases[: N_CASES // 3])  # what libraries keep for good is kept now
        gc.collect()
        before = memory_bytes()
        answers = round_of(cases)
    gc.collect()
    assert memory_bytes() - before < MOST_GROWTH
    found = [status for answer in answers for status in statuses(answer)]
    assert len(found) > N_CASES / 2
    assert [status for status in found if status >= 500] == []
    assert {400, 404, 405, 415} <= set(found)
    assert not any(SECRET.encode() in answer for answer in answers)
    assert SECRET not in caplog.text
    assert FAULT not in caplog.text  # what a caller does wrong is no fault of the gateway
    assert hasty.http.post("/v1/volumes", **form).content == right.content
    assert "medimageparse_gateway_held_bytes 0.0" in hasty.http.get("/metrics").text


def test_hundreds_of_half_open_connections_let_others_through(hasty):
    opened = [hasty.connect() for _ in range(300)]
    try:
        for connection in opened:
            connection.sendall(b"POST /v1/volumes HTTP/1.1\r\nHost: a\r\n")
        assert hasty.http.get("/").status_code == 200
        for connection in opened:
            assert connection.recv(1) == b""  # the gateway ends them
    finally:
        for connection in opened:
            connection.close()
