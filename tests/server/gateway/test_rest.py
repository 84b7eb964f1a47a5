"""/v1 before a real tritonserver: the same answers as over gRPC, to the bit."""

import base64
import gzip
import io
import json
from concurrent.futures import ThreadPoolExecutor

import httpx2
import nibabel as nib
import numpy as np
import pytest
from helpers.gateway import PATIENCE_S, running_gateway
from helpers.image_answers import image_file
from helpers.inference import executions, inferring
from helpers.running_server import triton_server, wait_until
from medimageparse_client import Client
from medimageparse_demo.phantoms import make_phantom
from medimageparse_gateway.triton import connect
from PIL import Image
from tritonclient.utils import InferenceServerException

PROMPTS = ("liver", "CT imaging of the spleen within the abdomen", "stomach", "aorta", "spine")


@pytest.fixture(scope="module")
def gateway(both_models):
    with running_gateway(connect(both_models.grpc_url)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def volume_file(volume):
    return gzip.compress(volume.to_bytes(), 1)


def post(gateway, path, file, prompts=PROMPTS, accept="*/*", **options):
    form = {"files": {"image": file}, "data": {"prompt": list(prompts), **options}}
    return gateway.http.post(path, headers={"accept": accept}, timeout=PATIENCE_S * 5, **form)


def without_times(report):
    """Nor the id, which is another for each request."""
    return {name: value for name, value in report.items() if name not in ("milliseconds", "request_id")}


def test_labels_of_a_volume_are_those_of_grpc(gateway, volume_file, answer):
    labels = nib.Nifti1Image.from_bytes(gzip.decompress(post(gateway, "/v1/volumes", volume_file).content))
    np.testing.assert_array_equal(np.asanyarray(labels.dataobj), answer["label_map"])


def test_the_report_of_a_volume_is_that_of_grpc(gateway, volume_file, answer):
    report = post(gateway, "/v1/volumes", volume_file, accept="application/json").json()
    assert without_times(report) == without_times(json.loads(answer["report"].item()))


def test_the_events_of_a_volume_end_with_the_same_labels(gateway, volume_file, answer):
    events = post(gateway, "/v1/volumes", volume_file, accept="text/event-stream").text.strip().split("\n\n")
    *told, (name, _, data) = [event.partition("\ndata: ") for event in events]
    done = [json.loads(progress)["slices_done"] for name, _, progress in told if name == "event: progress"]
    assert done == sorted(done)
    assert done[-1] == json.loads(told[-1][2])["slices"] == answer["label_map"].shape[2]
    assert name == "event: result"
    labels = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(json.loads(data)["labels"])))
    np.testing.assert_array_equal(np.asanyarray(labels.dataobj), answer["label_map"])


def test_a_large_tiff_in_tiles(gateway, both_models):
    field = np.random.default_rng(2).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    file = image_file(field, "TIFF", compression="tiff_lzw")
    with Client(both_models.grpc_url) as client:
        result = client.segment_image(field, ["left lung", "right lung"], tile=True)
    labels = post(gateway, "/v1/images", file, result.prompts, tile="true").content
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(labels))), result.label_map)
    events = post(gateway, "/v1/images", file, result.prompts, "text/event-stream", tile="true").text
    *told, (_, _, last) = [event.partition("\ndata: ") for event in events.strip().split("\n\n")]
    told = [json.loads(data) for _, _, data in told]
    assert [(progress["tiles_done"], progress["tiles"]) for progress in told] == [(done, 6) for done in range(7)]
    assert json.loads(last)["report"]["image"]["format"] == "TIFF"


def test_masks_of_a_picture_are_those_of_the_client(gateway, both_models, image):
    with Client(both_models.grpc_url) as client:
        result = client.segment_image(image, ["left lung", "right lung"])
    labels = post(gateway, "/v1/images", image, result.prompts).content
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(labels))), result.label_map)
    masks = post(gateway, "/v1/images", image, result.prompts, "application/x-npz").content
    with np.load(io.BytesIO(masks)) as file:
        np.testing.assert_array_equal(file["probabilities"], result.probabilities)


@pytest.mark.parametrize(
    "options",
    [{"image_type": "X-Ray-Chest"}, {"image_type": "X-Ray-Chest", "joint": "true", "p_value_threshold": "0.05"}],
)
def test_recognition_is_that_of_the_client(gateway, both_models, image, options):
    types = {"joint": json.loads, "p_value_threshold": float}
    with Client(both_models.grpc_url) as client:
        result = client.segment_image(image, **{name: types.get(name, str)(text) for name, text in options.items()})
    report = post(gateway, "/v1/images", image, [], "application/json", **options).json()
    assert without_times(report) == without_times(result.report)


@pytest.mark.parametrize(
    ("path", "file", "options"),
    [
        ("/v1/volumes", b"no volume", {}),
        ("/v1/volumes", None, {"intensity": "bright"}),
        ("/v1/volumes", None, {"slice_axis": "3"}),
        ("/v1/images", b"no picture", {}),
        ("/v1/images", None, {"image_type": "Photo"}),
    ],
)
def test_the_models_refuse_in_their_own_words(gateway, both_models, volume_file, image, path, file, options):
    file = file or (volume_file if "volumes" in path else image)
    refused = post(gateway, path, file, ["liver"], **options)
    assert refused.status_code == 400
    words = refused.json()["error"]["message"]
    inputs = {"image": file, "text": b"liver", **{name: text.encode() for name, text in options.items()}}
    model = "medimageparse_3d" if "volumes" in path else "medimageparse"
    with inferring(both_models, model, ["report"]) as infer, pytest.raises(InferenceServerException) as caught:
        infer(inputs)
    assert words in caught.value.message()


@pytest.mark.parametrize("accept", ["application/gzip", "text/event-stream"])
def test_a_caller_who_hangs_up_ends_the_work_within_a_window(gateway, both_models, volume_file, accept):
    phantom = make_phantom(6, "CT", (40, 128, 128))
    long = nib.Nifti1Image(np.tile(phantom.intensities, 12), phantom.affine)
    before = executions(both_models, "image_encoder_3d")
    form = {"files": {"image": gzip.compress(long.to_bytes(), 1)}, "data": {"prompt": ["liver"]}}
    request = gateway.http.build_request("POST", "/v1/volumes", headers={"accept": accept}, **form)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with gateway.connect() as connection:
        connection.sendall(f"POST /v1/volumes HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        wait_until(lambda: executions(both_models, "image_encoder_3d") > before + 2)
    given_up = executions(both_models, "image_encoder_3d")
    assert post(gateway, "/v1/volumes", volume_file, ["liver"]).status_code == 200  # two windows of its own
    wait_until(lambda: 'requests_under_way{route="/v1/volumes"} 1.0' not in gateway.http.get("/metrics").text)
    assert executions(both_models, "image_encoder_3d") <= given_up + 2 + 2
    assert given_up - before < 120


def test_more_requests_than_the_queue_takes_are_told_to_come_again(gateway, volume_file):
    def ask(_):
        answer = httpx2.post(
            gateway.url + "/v1/volumes",
            files={"image": volume_file},
            data={"prompt": "liver"},
            timeout=PATIENCE_S * 5,
            trust_env=False,
        )
        return answer.status_code, answer.headers.get("retry-after"), answer.content

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(ask, range(40)))
    assert {status for status, *_ in answers} == {200, 429}
    assert {retry for status, retry, _ in answers if status == 429} == {"1"}
    assert len({gzip.decompress(content) for status, _, content in answers if status == 200}) == 1


def test_a_server_that_is_away_is_503_and_the_gateway_lives(tmp_path, volumes_alone, volume_file):
    with (
        (tmp_path / "log").open("w") as log,
        triton_server(volumes_alone, models=("medimageparse_3d",), log=log) as server,
        running_gateway(connect(server.grpc_url)) as gateway,
    ):
        assert gateway.http.get("/ready").status_code == 200
        assert gateway.http.get("/v1/models").json()["models"][1] == {"name": "medimageparse", "ready": False}
        server.process.kill()
        server.process.wait()
        away = post(gateway, "/v1/volumes", volume_file)
        assert (away.status_code, away.headers["retry-after"]) == (503, "5")
        assert gateway.http.get("/ready").status_code == 503
        assert gateway.http.get("/").status_code == 200
