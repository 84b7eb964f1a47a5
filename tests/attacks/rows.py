"""The attacks, in the order of SECURITY.md: what is sent, what must be refused, and how much memory it may cost."""

import contextlib
import gzip
import io
import os
import socket
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import nibabel as nib
import numpy as np
from medimageparse_client import Client, InvalidRequest
from medimageparse_serving.launch import leftovers
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from attacks.odd_server import odd_answers
from attacks.target import Target, demand, http

MIB = 2**20
REFUSED = (0, 400, 401, 404, 405, 411, 413, 415, 422, 429, 503)  # 0: closed before all was sent
POSTS = ("/score", "/invocations", "/medimageparse_3d/score", "/v1/volumes", "/v1/images")
SECRET = "zebrafish-7391"


@dataclass(frozen=True)
class Row:
    """An attack; `memory` is how many bytes all processes together may grow by, beyond what a right request takes."""

    number: int
    title: str
    memory: int
    run: Callable[[Target], None]
    needs_gateway: bool = False


def request_of(model: str, **tensors: bytes) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, value in tensors.items():
        request.inputs.add(name=name, datatype="BYTES", shape=[1]).contents.bytes_contents.append(value)
    return request


def infer(target: Target, request: service_pb2.ModelInferRequest, **options: object) -> grpc.StatusCode | None:
    """The status of a gRPC call; None for success."""
    channel_options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(target.grpc, channel_options, compression=options.pop("compression", None)) as channel:
        try:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=300)
        except grpc.RpcError as error:
            return error.code()
    return None


def shapes_that_overflow(target: Target) -> None:
    """Their bytes, computed in 64 bits, are few or none; some can be had, and would take all memory."""
    sides = (2**62, 2**61, 2**40, 2**30)
    numeric = [("medimageparse", "p_value_threshold", "FP32", [n]) for n in sides]
    numeric += [("medimageparse", "joint", "BOOL", [n]) for n in sides]
    numeric += [("image_encoder_3d", "window", "UINT8", shape) for shape in ([2**31, 2**31, 2, 8], [1, -1, 9, 9])]
    for model, name, datatype, shape in numeric:
        for raw in (True, False):
            request = request_of(model, **({"image": b"x", "text": b"x"} if model == "medimageparse" else {}))
            tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
            if raw:
                texts = [struct.pack("<I", 1) + b"x"] * (len(request.inputs) - 1)
                request.raw_input_contents.extend([*texts, bytes(4)])
                for other in request.inputs:
                    other.ClearField("contents")
            elif datatype == "BOOL":
                tensor.contents.bool_contents.append(True)
            else:
                tensor.contents.fp32_contents.append(1)
            demand(infer(target, request) is not None, f"{model} took {name} of {shape}")


def shapes_in_json(target: Target) -> None:
    """The same in Triton's own JSON and in forms: the gateway takes no shape from anybody."""
    body = b'{"inputs": [{"name": "joint", "shape": [1099511627776], "datatype": "BOOL", "data": [true]}]}'
    for path in ("/v2/models/medimageparse/infer", "/v2/models/medimageparse/generate", *POSTS):
        status = target.post(path, body, content_type="application/json")
        demand(status in REFUSED, f"{path} answered {status}")
    for value in ("4611686018427387904", "1e400", "nan", "[1]"):
        body = form(image=b"x", prompt=b"x", p_value_threshold=value.encode())
        status = target.post("/v1/images", body, content_type=FORM)
        demand(status in REFUSED, f"p_value_threshold {value} was answered with {status}")


FORM = "multipart/form-data; boundary=b"


def form(**parts: bytes) -> bytes:
    head = '--b\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
    lines = [head.format(n, '; filename="a"' * (n == "image")).encode() + part + b"\r\n" for n, part in parts.items()]
    return b"".join(lines) + b"--b--\r\n"


def nested_json(target: Target) -> None:
    """16 MiB of brackets end tritonserver's own parser."""
    n = 16 * MIB
    for path in POSTS:
        for body in (b"[" * n, b'{"a":' * (n // 5), b'{"input_data": ' + b"[" * n):
            status = target.post(path, body, content_type="application/json")
            demand(status in REFUSED, f"{path} answered {status} to nested JSON")


def encoded_bodies(target: Target) -> None:
    """A thousand times as long when they are unpacked."""
    packed = {"gzip": gzip.compress(bytes(256 * MIB * target.size)), "deflate": zlib.compress(bytes(64 * MIB))}
    for path in POSTS:
        for encoding, body in packed.items():
            status = target.post(path, body, content_encoding=encoding, content_type="application/json")
            demand(status in REFUSED, f"{path} answered {status} to {encoding}")


def idle_connections(target: Target) -> None:
    """More than there are descriptors, each with a byte now and then."""
    for address, n in ((target.probes, 300 * target.size), (target.gateway, 300 * target.size)):
        if not address:
            continue
        host, _, port = address.rpartition(":")
        with contextlib.ExitStack() as held:
            for _ in range(n):
                with contextlib.suppress(OSError):  # refused or closed: so much the better
                    connection = held.enter_context(socket.create_connection((host.strip("[]"), int(port)), timeout=60))
                    connection.sendall(b"G")
            demand(http(address, "GET", "/ready") == 200, f"no answer at {address} beside {n} idle connections")


def shared_memory(target: Target) -> None:
    """Nobody else on this machine finds a region or reads a word, during a request or after it."""
    image = nib.Nifti1Image(np.frombuffer(SECRET.encode() * 48, np.uint8)[: 4 * 4 * 3].reshape(4, 4, 3), np.eye(4))
    with Client(target.grpc, timeout_s=300) as client:
        client.segment(image, [SECRET])
    ours = [path for path in leftovers.SHM.iterdir() if path.name.startswith(target.prefix)]
    demand([path.name for path in ours] == [f"{target.prefix}-lock"], "regions of steps can be found by name")
    demand(all(path.stat().st_mode & 0o077 == 0 for path in ours), "the lock is open to others")
    if os.geteuid() == 0:
        stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        others = [*map(str, leftovers.SHM.iterdir()), *(f"/proc/{pid}/environ" for pid in target.processes)]
        found = subprocess.run([*stranger, "grep", "-l", "-a", SECRET, *others], capture_output=True, text=True)
        demand(not found.stdout, "another user of this machine reads what was sent")


def core_dumps(target: Target) -> None:
    """A process that dies leaves no image on a disk."""
    for pid in target.processes[1:]:
        limits = Path(f"/proc/{pid}/limits").read_text()
        [line] = [line.split() for line in limits.splitlines() if line.startswith("Max core file size")]
        demand(line[4:6] == ["0", "0"], "a process of the service would dump its memory")


def pictures() -> Iterator[bytes]:
    """A MiB of TIFF's directories, JPEG's segments and PNG's chunks that hold nothing, the last two in a picture."""
    places = range(8, 8 + MIB, 6)
    yield b"II*\0" + struct.pack("<I", 8) + b"".join(struct.pack("<HI", 0, place + 6) for place in places)
    for kind, fillers in (
        ("jpeg", (b"\xff\xe5\x00\x02", b"\xff\xfe\x00\x02", b"\xff\xdb\x00\x02")),
        ("png", (struct.pack(">I4sI", 0, b"abCd", zlib.crc32(b"abCd")),)),
    ):
        file = io.BytesIO()
        Image.fromarray(np.full((48, 48), 99, np.uint8)).save(file, kind)
        start = 2 if kind == "jpeg" else 33  # SOI; the mark and IHDR
        for filler in fillers:
            yield file.getvalue()[:start] + filler * (MIB // len(filler)) + file.getvalue()[start:]


def empty_segments(target: Target) -> None:
    """Seventy times their bytes in memory, if they are read one by one."""
    for picture in pictures():
        for _ in range(target.size):
            status = infer(target, request_of("medimageparse", image=picture, text=b"liver"))
            demand(status == grpc.StatusCode.INVALID_ARGUMENT, f"an image of empty segments: {status or 'an answer'}")


def long_work(target: Target) -> None:
    """292 bytes that keep a network busy for as long as their sender likes."""
    volume = nib.Nifti1Image(np.zeros((1, 1, 2048), np.uint8), np.eye(4))
    prompts = [f"liver {n}" for n in range(64)]
    for _ in range(2 * target.size):
        with Client(target.grpc, timeout_s=300) as client:
            try:
                client.segment(volume, prompts)
                sentence = "2048 slices and 64 prompts were worked on"
            except InvalidRequest:
                sentence = ""
        demand(not sentence, sentence)


def one_byte_chunks(target: Target) -> None:
    """Six bytes of a connection for each byte of a body."""
    for path in POSTS:
        kind = {"Content-Type": FORM if path.startswith("/v1") else "application/json"}
        chunks = iter([b" "] * 50_000 * target.size)
        status = http(target.gateway, "POST", path, chunks, kind | target.authorization())
        demand(status in REFUSED, f"{path} answered {status} to chunks")


def compressed_messages(target: Target) -> None:
    """tritonserver 2.51 unpacks them, up to 2 GB each: here 64 MiB. deploy/nginx.conf refuses them."""
    request = request_of("medimageparse", image=b"x", text=bytes(64 * MIB))
    status = infer(target, request, compression=grpc.Compression.Gzip)
    demand(status == grpc.StatusCode.INVALID_ARGUMENT, f"a text of 64 MiB: {status or 'an answer'}")


def foreign_leftovers(target: Target) -> None:
    """Files that any user may create: names with stars, links, pipes."""
    names = ["medimageparse-*-lock", "medimageparse--lock", f"{target.prefix}*-lock", "medimageparse-????????-lock"]
    paths = [leftovers.SHM / name for name in names]
    pipe = leftovers.SHM / "medimageparse-aaaaaaa1-lock"
    try:
        for path in paths:
            path.touch()
        os.mkfifo(pipe)
        swept = leftovers.sweep()  # as the start of another server does
        demand(not {f"{name}-lock" for name in swept} & set(names), "a foreign name was taken for one of ours")
        demand((leftovers.SHM / f"{target.prefix}-lock").exists(), "the lock of a running server was removed")
    finally:
        for path in (*paths, pipe):
            path.unlink(missing_ok=True)


# as much as the largest of the requests in memory, and what a decoder needs for it
ROWS = (
    Row(1, "shapes that overflow, over gRPC", 64 * MIB, shapes_that_overflow),
    Row(1, "shapes that overflow, over the gateway", 64 * MIB, shapes_in_json, needs_gateway=True),
    Row(2, "nested JSON", 256 * MIB, nested_json, needs_gateway=True),
    Row(3, "Content-Encoding", 64 * MIB, encoded_bodies, needs_gateway=True),
    Row(4, "idle connections", 128 * MIB, idle_connections),
    Row(5, "shared memory, for other users", 64 * MIB, shared_memory),
    Row(5, "core dumps", 64 * MIB, core_dumps),
    Row(6, "images of empty segments", 64 * MIB, empty_segments),
    Row(7, "small files that work long", 128 * MIB, long_work),
    Row(8, "chunks of a byte", 64 * MIB, one_byte_chunks, needs_gateway=True),
    Row(8, "compressed gRPC messages", 512 * MIB, compressed_messages),
    Row(9, "names of leftovers", 64 * MIB, foreign_leftovers),
    Row(10, "a server that answers a client oddly", 64 * MIB, odd_answers),
)
