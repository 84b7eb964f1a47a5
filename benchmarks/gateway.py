"""What the gateway costs: /score beside Triton's gRPC with the same request in one run, and idle streams.

3D is asked with networks that compute nothing (each remembers its answers by shape), so that the way of the bytes is
all that is measured: from the first byte of the client to the last of the answer. Base64 is a cost of the form that
Azure takes, so it is measured apart: reading it and the JSON around it. 2D is asked with the demo networks by eight
clients. Idle streams are requests for events to a server that never answers.
"""

import argparse
import base64
import gzip
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import nibabel as nib
import numpy as np
import psutil
import tritonclient.grpc
from medimageparse_client.connection import channel_options
from medimageparse_client.formats.picture import encode_image
from medimageparse_demo.images import make_image
from medimageparse_demo.phantoms import make_phantom
from medimageparse_demo.repository import demo_repository
from medimageparse_gateway.azure_forms import read_score
from medimageparse_serving.launch.triton_server import TritonServer
from recording import RESULTS, Row, conditions, median, parser_of, record
from tritonclient.grpc import service_pb2, service_pb2_grpc

REPEATS, WARM_UP = 9, 3
CLIENTS, SECONDS, ROUNDS = 8, 8.0, 3
STREAMS = 200
PROMPTS = "liver & spleen & stomach"
SHAPES = ((16, 256, 256), (30, 512, 512))  # slices, height, width
PACKAGES = ("starlette", "uvicorn", "tritonclient", "grpcio", "pybase64", "msgspec")
EVENTS = {"Accept": "text/event-stream", "Content-Type": "multipart/form-data; boundary=b"}
PART = "--b\r\nContent-Disposition: form-data; name="
FORM = f'{PART}"image"\r\n\r\nx\r\n{PART}"prompt"\r\n\r\nliver\r\n--b--\r\n'.encode()
REMEMBERING = """
from medimageparse_serving.triton.onnxruntime_model import TritonPythonModel as Network


class TritonPythonModel(Network):
    def load(self, graph, parameters):
        self.known = {}
        return super().load(graph, parameters)

    def run(self, feeds, names):
        shapes = (*names, *(array.shape for array in feeds.values()))
        if shapes not in self.known:
            self.known[shapes] = super().run(feeds, names)
        return self.known[shapes]
"""


@contextmanager
def gateway(triton: str, **settings: int) -> Iterator[tuple[int, psutil.Process]]:
    """A gateway in a process of its own: its port, and the process."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "gateway.toml"
        config.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        command = [sys.executable, "-m", "medimageparse_gateway", "--config", config, "--port", "0", "--triton", triton]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert process.stdout
            port = int(process.stdout.readline().rpartition(":")[2])
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.communicate()


class OverHttp:
    """/score by one connection; the body is there before the clock starts."""

    def __init__(self, port: int, file: bytes, text: str) -> None:
        rows = {"columns": ["image", "text"], "data": [[base64.b64encode(file).decode(), text]]}
        self.body = json.dumps({"input_data": rows}).encode()
        self.connection = http.client.HTTPConnection("127.0.0.1", port)

    def send(self) -> bytes:
        self.connection.request("POST", "/score", self.body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"/score answered {answer.status}: {content[:200]!r}")
        return content

    def base64_ms(self) -> float:
        """How long the gateway takes to read the JSON and the base64 in it."""
        return median([clock(lambda: read_score(bytearray(self.body))) for _ in range(REPEATS)])


class OverGrpc:
    """The same request by Triton's own client."""

    def __init__(self, url: str, model: str, file: bytes, text: str, outputs: dict[str, list[str]]) -> None:
        ((option, names),) = outputs.items()
        self.model, self.triton = model, tritonclient.grpc.InferenceServerClient(url, channel_args=channel_options(url))
        self.inputs = []
        for name, value in {"image": file, "text": text.encode(), "output": option.encode()}.items():
            self.inputs.append(tritonclient.grpc.InferInput(name, [1], "BYTES"))
            self.inputs[-1].set_data_from_numpy(np.array([value], np.object_))
        self.outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in names]

    def send(self) -> None:
        answer = self.triton.infer(self.model, self.inputs, outputs=self.outputs)
        for output in self.outputs:
            answer.as_numpy(output.name())


def clock(work: Callable[[], object]) -> float:
    """Milliseconds."""
    begin_s = time.perf_counter()
    work()
    return (time.perf_counter() - begin_s) * 1e3


def volumes(folder: Path) -> Iterator[Row]:
    """3D, one client, in turns."""
    repository = demo_repository(folder / "nothing_computed")
    for network in ("text_encoder_3d", "image_encoder_3d", "mask_decoder_3d"):
        (repository / network / "1" / "onnxruntime_model.py").write_text(REMEMBERING)
    with TritonServer(repository, models=("medimageparse_3d",)) as server, gateway(server.grpc_url) as (port, _):
        for shape in SHAPES:
            phantom = make_phantom(4, "CT", shape)
            file = gzip.compress(nib.Nifti1Image(phantom.intensities, phantom.affine).to_bytes(), 1)
            over_http = OverHttp(port, file, PROMPTS)
            over_grpc = OverGrpc(server.grpc_url, "medimageparse_3d", file, PROMPTS, {"nifti_file": ["nifti_file"]})
            taken_ms: tuple[list[float], list[float]] = ([], [])
            for _ in range(WARM_UP + REPEATS):
                taken_ms[0].append(clock(over_http.send))
                taken_ms[1].append(clock(over_grpc.send))
            ours_ms, grpc_ms = (median(times[WARM_UP:]) for times in taken_ms)
            base64_ms = over_http.base64_ms()
            what = f"3D, networks compute nothing, {shape[0]} x {shape[1]} x {shape[2]}, {len(file) / 1e6:.1f} MB"
            ratio = (ours_ms - base64_ms) / grpc_ms
            yield row(what, "ms", ours_ms, grpc_ms, base64_ms, ratio, "at most 1.10")


def images(folder: Path) -> Iterator[Row]:
    """2D, eight clients, in turns of some seconds."""
    repository = demo_repository(folder / "images")
    file = encode_image(make_image(1).pixels).data
    with TritonServer(repository, models=("medimageparse",)) as server, gateway(server.grpc_url) as (port, _):
        outputs = {"probabilities": ["image_features", "text_features"]}
        ours = [OverHttp(port, file, "liver & heart") for _ in range(CLIENTS)]
        theirs = [OverGrpc(server.grpc_url, "medimageparse", file, "liver & heart", outputs) for _ in range(CLIENTS)]
        for client in (*ours, *theirs):
            client.send()
        rates: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            rates[0].append(throughput([client.send for client in ours]))
            rates[1].append(throughput([client.send for client in theirs]))
        ours_s, grpc_s = map(median, rates)
        what = f"2D, {CLIENTS} clients, {len(file) / 1e3:.0f} kB"
        yield row(what, "requests/s", ours_s, grpc_s, 0.0, ours_s / grpc_s, "at least 0.9")


def throughput(clients: list[Callable[[], object]]) -> float:
    """Answers a second of clients who each send one request after the other."""
    begin_s = time.perf_counter()

    def work(send: Callable[[], object]) -> int:
        n_done = 0
        while time.perf_counter() < begin_s + SECONDS:
            send()
            n_done += 1
        return n_done

    with ThreadPoolExecutor(len(clients)) as pool:
        n_done = sum(pool.map(work, clients))
    return n_done / (time.perf_counter() - begin_s)


class NeverAnswers(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A Triton whose models take requests and say nothing until the end."""

    def __init__(self) -> None:
        self.taken, self.ended = threading.Semaphore(0), threading.Event()

    def ModelReady(self, request: object, context: object) -> service_pb2.ModelReadyResponse:
        return service_pb2.ModelReadyResponse(ready=True)

    def ModelStreamInfer(self, requests: object, context: object) -> Iterator[service_pb2.ModelStreamInferResponse]:
        self.taken.release()
        self.ended.wait()
        yield from ()


def streams(folder: Path) -> Iterator[Row]:
    """Memory of the gateway with so many callers who wait for events."""
    silent, workers = NeverAnswers(), ThreadPoolExecutor(STREAMS + WARM_UP + 1)
    server = grpc.server(workers)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(silent, server)
    url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with gateway(url, requests_at_once=2 * STREAMS) as (port, process), ExitStack() as opened:

        def open_streams(n_streams: int) -> int:
            for _ in range(n_streams):
                connection = http.client.HTTPConnection("127.0.0.1", port)
                opened.callback(connection.close)
                connection.request("POST", "/v1/volumes", FORM, EVENTS)
                connection.getresponse()
            for _ in range(n_streams):
                silent.taken.acquire()
            return int(process.memory_info().rss)

        before = open_streams(WARM_UP)
        grown_mb = (open_streams(STREAMS) - before) / 1e6
        silent.ended.set()
    server.stop(None)
    yield row(f"{STREAMS} idle streams", "MB", grown_mb, 0.0, 0.0, grown_mb / STREAMS, "under 100 MB in all")


def row(what: str, unit: str, ours: float, grpc_alone: float, base64_apart: float, ratio: float, goal: str) -> Row:
    """ratio: without base64, except that of streams, which is MB a stream."""
    measured = {"what": what, "unit": unit, "gateway": ours, "grpc": grpc_alone, "base64": base64_apart}
    return {**measured, "ratio": ratio, "goal": goal, **conditions(PACKAGES)}


def summary(row: Row) -> str:
    numbers = [f"{name} {row[name]:.3g}" for name in ("gateway", "grpc", "base64", "ratio")]
    return f"{row['what']}: {', '.join(numbers)} ({row['unit']}; {row['goal']})"


MEASURES = {"volumes": volumes, "images": images, "streams": streams}


def main() -> None:
    parser = parser_of(__doc__ or "", RESULTS / "gateway.csv", work=False)
    parser.add_argument("--only", choices=MEASURES, nargs="+", default=list(MEASURES))
    options: argparse.Namespace = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            record(options.results, MEASURES[name](Path(folder)), summary)


if __name__ == "__main__":
    main()
