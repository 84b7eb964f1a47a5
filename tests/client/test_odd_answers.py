"""A server may answer anything: what is no answer of MedImageParse is a ServerError, and takes no more memory."""

import base64
import gzip
import json
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import nibabel as nib
import numpy as np
import pytest
from helpers.image_answers import image_file
from medimageparse_client import Client, MedImageParseError, ServerError
from medimageparse_client.cli import main
from tritonclient.grpc import service_pb2, service_pb2_grpc

PICTURE = np.zeros((6, 7), np.uint8)
# JSON texts that are none, or say something else than they should
NO_OBJECTS = (b"", b"{", b"null", b"[]", b"3", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}', b"{}")


def text(content):
    return np.array([content], np.object_)


def nifti(labels, kind=nib.Nifti1Image, **fields):
    image = kind(np.asarray(labels), np.eye(4))
    for name, value in fields.items():
        image.header[name] = value
    return gzip.compress(image.to_bytes())


def with_field(at, value):
    """The volume's label map, not packed, with a field of its header changed afterwards."""
    content = bytearray(gzip.decompress(nifti(np.zeros((10, 12, 8), np.uint8))))
    content[at : at + value.nbytes] = value.tobytes()
    return bytes(content)


def nifti_file(data):
    return text(json.dumps({"data": base64.b64encode(data).decode()}).encode())


@pytest.fixture(scope="module")
def bomb():
    """A .nii.gz whose header is that of the volume, and which unpacks to 256 MiB."""
    return gzip.compress(gzip.decompress(nifti(np.zeros((10, 12, 8), np.uint8))) + bytes(2**28), 1)


@pytest.fixture
def told(triton, monkeypatch, volume_file):
    """told(model, output=array, ...): asks a server that is right but for these outputs."""

    def told(model, **outputs):
        name = "answer_volume" if model == "segment" else "answer_image"
        real = getattr(triton, name)

        def answer(self, image, prompts):
            found = real(self, image, prompts)
            for output, change in outputs.items():
                found.arrays[output] = change(found.arrays[output]) if callable(change) else change
            return found

        monkeypatch.setattr(triton, name, answer)
        with Client() as client:
            if model == "segment":
                return client.segment(volume_file, ["liver", "spleen"])
            return client.segment_image(PICTURE, ["liver", "spleen"])

    return told


def changed(**fields):
    """A change of the JSON in an output: a__1__b lies within others; a field that becomes Ellipsis is left out."""

    def change(array):
        content = json.loads(array.item())
        for path, value in fields.items():
            *within, last = path.split("__")
            place = content
            for step in within:
                place = place[int(step) if step.isdigit() else step]
            if value is ...:
                del place[last]
            else:
                place[last] = value
        return text(json.dumps(content).encode())

    return change


@pytest.mark.parametrize("content", NO_OBJECTS, ids=lambda content: repr(content[:9]))
@pytest.mark.parametrize(
    ("model", "output"),
    [
        ("segment", "nifti_file"),
        ("segment", "report"),
        ("segment-image", "report"),
    ],
)
def test_json_that_is_none_or_another(told, model, output, content):
    with pytest.raises(ServerError, match=output):
        told(model, **{output: text(content)})


@pytest.mark.parametrize(
    "array",
    [
        np.array([], np.object_),
        np.array(b"{}", np.object_),
        np.array([b"{}"] * 3, np.object_),
        np.array([["{}"]], np.object_),
        np.array([3], np.object_),
        np.array([None], np.object_),
        np.zeros(1, np.float32),
        np.zeros((2, 3), np.uint8),
        None,
    ],
    ids=lambda array: "none" if array is None else f"{array.dtype}{list(array.shape)}",
)
@pytest.mark.parametrize(
    ("model", "output"),
    [
        *(("segment", name) for name in ("nifti_file", "report", "scores")),
        *(("segment-image", name) for name in ("probabilities", "text_features", "report")),
    ],
)
def test_tensors_of_another_type_or_shape(told, model, output, array):
    with pytest.raises(ServerError):
        told(model, **{output: array})


@pytest.mark.parametrize("scores", [np.ones((2, 9)), np.ones((3, 8)), np.ones((8, 2)), np.ones(16), np.ones((2, 8, 1))])
def test_scores_are_one_for_each_prompt_and_slice(told, scores):
    with pytest.raises(ServerError, match="score"):
        told("segment", scores=scores.astype(np.float32))
    with pytest.raises(ServerError, match="float64"):
        told("segment", scores=np.ones((2, 8)))


@pytest.mark.parametrize(
    "fields",
    [
        {"prompts": {}},
        {"prompts": []},
        {"prompts": None},
        {"prompts__1": {}},
        {"prompts__1__voxels": "many"},
        {"prompts__1__voxels": 1.5},
        {"prompts__1__present": None},
        {"prompts__1__highest_score": [1]},
        {"prompts__1__truncated": ...},
        {"image": []},
        {"image__affine": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]},
        {"image__affine": np.zeros((4, 4)).tolist()},
        {"image__affine": "identity"},
        {"image__sides_known": 3},
        {"image__slice_axis_stored": 3},
        {"image__slice_axis_stored": 1},
        {"image__intensity": "none"},
        {"image__intensity__bounds": [1]},
        {"image__intensity__bounds": ["low", "high"]},
        {"image__intensity__padding": 4},
        {"image__stored_orientation": 4},
        {"warnings": "none"},
        {"warnings": [{}]},
    ],
    ids=str,
)
def test_reports_on_a_volume_that_lack_something_or_say_something_else(told, fields):
    with pytest.raises(ServerError):
        told("segment", report=changed(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"prompts": {}},
        {"prompts": []},
        {"prompts__1__text": 4},
        {"prompts__1__area_pixels": None},
        {"prompts__1__category": ...},
        {"prompts__1__p_value": "small"},
        {"rejected": ...},
        {"rejected": [[]]},
        {"image__exif_orientation": "upright"},
        {"image__intensity": ...},
        {"image__exif_orientation": 6},
        {"warnings": 4},
    ],
    ids=str,
)
def test_reports_on_an_image_that_lack_something_or_say_something_else(told, fields):
    with pytest.raises(ServerError):
        told("segment-image", report=changed(**fields))


@pytest.mark.parametrize(
    "labels",
    [
        b"",
        b"no gzip",
        gzip.compress(b"no NIfTI"),
        nifti(np.zeros((10, 12, 8), np.uint8))[:-9],
        nifti(np.zeros((10, 12, 8), np.uint8))[:-8] + bytes(8),  # checksum and length
        nifti(np.zeros((10, 12, 8), np.uint8))[:10] + b"\xff" * 500,  # no block of deflate begins so
        nifti(np.zeros((10, 12, 8), np.uint8)) + b"more",
        nifti(np.zeros((10, 12, 8), np.uint8)) + gzip.compress(b"more"),
        gzip.compress(gzip.decompress(nifti(np.zeros((10, 12, 8), np.uint8)))[:-1]),
        gzip.decompress(nifti(np.zeros((10, 12, 8), np.uint8))),
        nifti(np.zeros((12, 10, 8), np.uint8)),
        nifti(np.zeros((10, 12, 9), np.uint8)),
        nifti(np.zeros((10, 12, 8, 2), np.uint8)),
        nifti(np.zeros((10, 12), np.uint8)),
        nifti(np.zeros((10, 12, 8), np.float32)),
        nifti(np.zeros((10, 12, 8), np.int16)),
        nifti(np.full((10, 12, 8), 3, np.uint8)),
        gzip.compress(gzip.decompress(nifti(np.zeros((10, 12, 8), np.uint8)))[:40] + b"\xff" * 500),
        nifti(np.zeros((10, 12, 8), np.uint8), vox_offset=2.0**20),
        gzip.compress(with_field(108, np.float32(2**30))),  # vox_offset
    ],
    ids=range(20),
)
def test_label_maps_that_are_none_of_this_volume(told, labels):
    with pytest.raises(ServerError, match="nifti_file"):
        told("segment", nifti_file=nifti_file(labels))


def test_a_scaled_label_map_is_refused(told):
    content = with_field(112, np.float32(2))  # scl_slope
    with pytest.raises(ServerError, match="label"):
        told("segment", nifti_file=nifti_file(gzip.compress(content)))


def test_a_label_map_of_16_bits_is_taken_in_either_order(told):
    labels = np.zeros((10, 12, 8), np.uint16)
    labels[1, 2, 3] = 2
    for order in "<>":
        image = nib.Nifti1Image(labels, np.eye(4), nib.Nifti1Header(endianness=order), dtype=np.uint16)
        found = told("segment", nifti_file=nifti_file(gzip.compress(image.to_bytes())))
        assert np.array_equal(found.label_map, labels)


def test_no_more_is_unpacked_than_the_volume_needs(told, bomb):
    packed = nifti_file(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(ServerError, match="nifti_file"):
            told("segment", nifti_file=packed)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(2, 7, 6), (2, 6, 8), (2, 5, 9), (2, 0, 7), (2, 6, 0)])
def test_maps_of_another_size_than_the_image_are_refused(told, shape):
    with pytest.raises(ServerError, match="another size"):
        told("segment-image", probabilities=np.zeros(shape, np.uint8))


@pytest.mark.parametrize("n", [0, 1, 3])
def test_maps_are_one_for_each_prompt(told, n):
    with pytest.raises(ServerError, match="one map and one category for each prompt"):
        told("segment-image", probabilities=np.zeros((n, 6, 7), np.uint8))


@pytest.mark.parametrize("maps", [np.zeros((2, 6, 7)), np.zeros((2, 6, 7), np.int8), np.zeros((2, 1, 6, 7), np.uint8)])
def test_maps_are_uint8_of_three_axes(told, maps):
    with pytest.raises(ServerError, match="has probabilities as"):
        told("segment-image", probabilities=maps)


@pytest.mark.parametrize("categories", [[b"lung"], [b"lung"] * 3, [b"\xff", b"lung"], ["lung", "lung"], [3, None]])
def test_categories_are_one_text_for_each_prompt(told, categories):
    with pytest.raises(ServerError):
        told("segment-image", text_features=np.array(categories, np.object_))


# --- odd answers of HTTP and gRPC themselves


def tensor(**fields):
    return json.dumps({"outputs": [{"name": "nifti_file", "datatype": "BYTES", "shape": [1], "data": ["{}"]} | fields]})


HTTP_ANSWERS = {
    "nothing": (b"", {}),
    "no JSON": (b"hello", {}),
    "no text": (b"\xff\xfe", {}),
    "object": (b"{}", {}),
    "list": (b"[]", {}),
    "null": (b"null", {}),
    "nested": (b"[" * 100_000, {}),
    "outputs are text": (b'{"outputs": "none"}', {}),
    "outputs are null": (b'{"outputs": null}', {}),
    "outputs have no name": (b'{"outputs": [{}]}', {}),
    "no shape": (b'{"outputs": [{"name": "nifti_file"}]}', {}),
    "another shape": (tensor(shape=[5]).encode(), {}),
    "a shape of text": (tensor(shape="one").encode(), {}),
    "an unknown type": (tensor(datatype="FP99").encode(), {}),
    "numbers as text": (tensor(datatype="FP32").encode(), {}),
    "a header that is not there": (b"{}", {"Inference-Header-Content-Length": "999"}),
    "a header without a number": (b"{}", {"Inference-Header-Content-Length": "many"}),
    "bytes that are not there": (tensor(parameters={"binary_data_size": 99}).encode(), {}),
    "gzip": (gzip.compress(b"{}"), {"Content-Encoding": "gzip"}),
    "deflate": (b"x", {"Content-Encoding": "deflate"}),
}


@pytest.fixture
def http_server():
    """An address where each POST, and the metadata, get `server.answer`: a status, a body and headers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send(*server.answer)

        def do_GET(self):
            is_asked = self.path.rstrip("/").endswith("v2") or not server.has_metadata_only
            self.send(*server.answer) if is_asked else self.send(200, b"", {})

        def send(self, status, body, headers):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answer, server.has_metadata_only = (200, b"{}", {}), True
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", HTTP_ANSWERS)
def test_odd_answers_over_http(http_server, volume, affine, name):
    http_server.answer = (200, *HTTP_ANSWERS[name])
    with Client(http_server.url) as client:
        with pytest.raises(ServerError):
            client.segment(volume, "liver", affine=affine)
        with pytest.raises(ServerError):
            client.segment_image(PICTURE, "liver")


@pytest.mark.parametrize("name", ["object", "list", "null", "no JSON", "nothing", "nested"])
def test_odd_metadata_over_http(http_server, capsys, name):
    http_server.answer = (200, *HTTP_ANSWERS[name])
    with Client(http_server.url) as client:
        health = client.health()
    assert not health.is_live
    assert "not one of MedImageParse" in health.problem
    assert isinstance(health.error, ServerError)
    assert main(["health", "--url", http_server.url]) == 7
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("error", ["words", 3, None, {}, ["words"], {"message": "words"}])
@pytest.mark.parametrize("status", [400, 500, 503])
def test_errors_that_are_no_text(http_server, volume, affine, status, error):
    http_server.answer = (status, json.dumps({"error": error}).encode(), {})
    with Client(http_server.url, retries=0) as client, pytest.raises(MedImageParseError) as caught:
        client.segment(volume, "liver", affine=affine)
    assert ("words" if error == "words" else "no reason given") in str(caught.value)


def test_a_compressed_answer_is_not_unpacked(http_server, volume, affine, bomb):
    http_server.answer = (200, bomb, {"Content-Encoding": "gzip"})
    with Client(http_server.url) as client:
        tracemalloc.start()
        try:
            with pytest.raises(ServerError, match="compressed"):
                client.segment(volume, "liver", affine=affine)
            assert tracemalloc.get_traced_memory()[1] < 2**25
        finally:
            tracemalloc.stop()


@pytest.fixture
def grpc_server():
    """An address where each request gets `server.answer`, a ModelInferResponse."""

    class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
        answer = service_pb2.ModelInferResponse()

        def ModelInfer(self, request, context):
            return self.answer

        def ServerLive(self, request, context):
            return service_pb2.ServerLiveResponse(live=True)

        def ModelReady(self, request, context):
            return service_pb2.ModelReadyResponse(ready=True)

        def ServerMetadata(self, request, context):
            return service_pb2.ServerMetadataResponse()

    service = Service()
    server = grpc.server(ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    service.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield service
    server.stop(None).wait()


GRPC_TENSORS = [
    None,
    {"datatype": "BYTES", "shape": [1], "raw": b""},
    {"datatype": "BYTES", "shape": [1], "raw": b"\x09\0\0\0short"},
    {"datatype": "BYTES", "shape": [1], "raw": b"\x09"},
    {"datatype": "BYTES", "shape": [2], "raw": b"\x02\0\0\0{}"},
    {"datatype": "BYTES", "shape": [-5], "raw": b"\x02\0\0\0{}"},
    {"datatype": "FP32", "shape": [2, 3], "raw": b"abc"},
    {"datatype": "FP32", "shape": [2**60], "raw": bytes(4)},
    {"datatype": "nothing", "shape": [1], "raw": bytes(8)},
    {"datatype": "", "shape": [], "raw": b""},
]


@pytest.mark.parametrize("fields", GRPC_TENSORS, ids=str)
def test_odd_answers_over_grpc(grpc_server, volume, affine, fields):
    answer = service_pb2.ModelInferResponse()
    names = ("nifti_file", "scores", "report", "probabilities", "text_features") if fields else ()
    for name in names:
        answer.outputs.add(name=name, datatype=fields["datatype"], shape=fields["shape"])
        answer.raw_output_contents.append(fields["raw"])
    grpc_server.answer = answer
    with Client(grpc_server.url, timeout_s=20) as client:
        with pytest.raises(ServerError):
            client.segment(volume, "liver", affine=affine)
        with pytest.raises(ServerError):
            client.segment_image(PICTURE, "liver")


def test_the_command_says_it_in_a_line_and_does_not_ask_again(triton, monkeypatch, volume_file, tmp_path, capsys):
    monkeypatch.setattr(triton, "answer_volume", lambda self, image, prompts: None)
    assert main(["segment", str(volume_file), "liver", "-o", str(tmp_path / "masks.nii.gz")]) == 7
    err = capsys.readouterr().err
    assert "the server's answer is not one of MedImageParse" in err
    assert err.count("\n") == 1
    assert len(triton.requests) == 1
    (tmp_path / "xray.png").write_bytes(image_file(PICTURE))
    monkeypatch.setattr(triton, "answer_image", lambda self, image, prompts: [])
    assert main(["segment-image", str(tmp_path / "xray.png"), "lung", "-o", str(tmp_path / "masks.png")]) == 7
    assert len(triton.requests) == 2


def test_a_closed_client_says_so(triton, volume, affine):
    client = Client()
    client.close()
    with pytest.raises(ValueError, match="closed"):
        client.segment(volume, "liver", affine=affine)
