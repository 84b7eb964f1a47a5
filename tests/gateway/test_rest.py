"""/v1: forms in, files out."""

import gzip
import io
import json

import nibabel as nib
import numpy as np
import pytest
from helpers.gateway import FakeModels
from medimageparse_contract.catalogue import structures
from medimageparse_gateway.errors import STATUS_OF_KIND, TritonError
from PIL import Image

VOLUMES, IMAGES = "/v1/volumes", "/v1/images"


def post(gateway, path, file, prompts=("liver",), accept=None, **options):
    headers = {} if accept is None else {"accept": accept}
    return gateway.http.post(path, files={"image": file}, data={"prompt": list(prompts), **options}, headers=headers)


@pytest.fixture
def file_of(volume_file, picture_file):
    return {VOLUMES: volume_file, IMAGES: picture_file}


def test_a_volume_is_answered_with_its_label_map(gateway, models, volume_file):
    answer = post(gateway, VOLUMES, volume_file, ["liver", " spleen "])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/gzip")
    labels = np.asanyarray(nib.Nifti1Image.from_bytes(gzip.decompress(answer.content)).dataobj)
    sent = np.asanyarray(nib.Nifti1Image.from_bytes(gzip.decompress(volume_file)).dataobj)
    np.testing.assert_array_equal(labels, sent)
    (request,) = models.requests
    assert request == {
        "model": "medimageparse_3d",
        "outputs": ["nifti_file"],
        "text": b"liver & spleen",
        "output": "nifti_file",
    }
    assert answer.headers["content-disposition"] == 'attachment; filename="labels.nii.gz"'
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("options", "sent", "file"),
    [
        ({"output": "masks_file"}, {"output": "masks_file"}, "masks"),
        ({"output": "probabilities_file"}, {"output": "probabilities_file"}, "probabilities"),
        ({"output": "instances_file"}, {"output": "nifti_file", "instances": True}, "instances"),
        ({"output": "uncertainty_file", "draws": "4"}, {"output": "nifti_file", "draws": 4}, "uncertainty"),
    ],
    ids=str,
)
def test_output_names_the_file_that_the_answer_is(gateway, models, volume_file, options, sent, file):
    answer = post(gateway, VOLUMES, volume_file, ["liver", "spleen"], **options)
    assert answer.headers["content-disposition"] == f'attachment; filename="{file}.nii.gz"'
    assert nib.Nifti1Image.from_bytes(gzip.decompress(answer.content)).ndim == (3 if file == "instances" else 4)
    (request,) = models.requests
    assert {name: request[name] for name in sent} == sent
    assert request["outputs"] == [f"{file}_file"]


def test_a_picture_is_answered_with_its_label_map(gateway, models, picture_file):
    answer = post(gateway, IMAGES, picture_file, ["left lung"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    labels = np.asarray(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(labels, [[1, 1, 1, 1, 0, 0, 0, 0]] * 6)
    assert models.images == [picture_file]


def test_a_picture_is_answered_with_its_probabilities(gateway, picture_file):
    answer = post(gateway, IMAGES, picture_file, ["a", "b"], accept="application/x-npz")
    with np.load(io.BytesIO(answer.content)) as file:
        assert file["probabilities"].shape == (2, 6, 8)
        assert file["prompts"].tolist() == ["a", "b"]


@pytest.mark.parametrize("path", [VOLUMES, IMAGES])
def test_a_report_is_what_the_model_says(gateway, models, file_of, path):
    answer = post(gateway, path, file_of[path], accept="application/json")
    assert answer.json()["prompts"][0]["text"] == "liver"
    assert models.requests[0]["outputs"] == ["report"]


@pytest.mark.parametrize(
    ("path", "options", "inputs"),
    [
        (VOLUMES, {"intensity": "ct-lung"}, {"intensity": "ct-lung"}),
        (VOLUMES, {"orientation": "stored", "slice_axis": "1"}, {"orientation": "stored", "slice_axis": "1"}),
        (VOLUMES, {"draws": "8"}, {"draws": 8, "output": "nifti_file"}),
        (VOLUMES, {"instances": "true"}, {"instances": True}),
        (IMAGES, {"image_type": "OCT"}, {"image_type": "OCT"}),
        (IMAGES, {"joint": "true"}, {"joint": True}),
        (IMAGES, {"joint": "False"}, {"joint": False}),
        (IMAGES, {"p_value_threshold": "0.05"}, {"p_value_threshold": 0.05}),
        (IMAGES, {"tile": "true"}, {"tile": True}),
    ],
)
def test_options_reach_the_model_in_its_own_types(gateway, models, file_of, path, options, inputs):
    assert post(gateway, path, file_of[path], **options).status_code == 200
    (request,) = models.requests
    assert {name: request[name] for name in inputs} == inputs


def test_recognition_needs_no_prompt(gateway, models, picture_file):
    answer = post(gateway, IMAGES, picture_file, [], "application/json", image_type="X-Ray-Chest")
    assert [prompt["text"] for prompt in answer.json()["prompts"]] == list(models.recognized)
    assert "text" not in models.requests[0]


@pytest.mark.parametrize(
    ("path", "accept", "media"),
    [
        (VOLUMES, "*/*", "application/gzip"),
        (VOLUMES, "", "application/gzip"),
        (VOLUMES, "application/*", "application/gzip"),
        (VOLUMES, "application/json, */*", "application/json"),
        (VOLUMES, "application/json;q=0.5, application/gzip", "application/gzip"),
        (VOLUMES, "application/gzip;q=0, */*", "application/json"),
        (VOLUMES, "text/html, application/json;q=0.1", "application/json"),
        (IMAGES, "image/*", "image/png"),
        (IMAGES, "APPLICATION/JSON", "application/json"),
    ],
)
def test_accept_chooses_the_form_of_the_answer(gateway, file_of, path, accept, media):
    assert post(gateway, path, file_of[path], accept=accept).headers["content-type"] == media


@pytest.mark.parametrize(
    ("path", "accept"),
    [(VOLUMES, "image/png"), (VOLUMES, "*/*;q=0"), (IMAGES, "application/gzip"), (IMAGES, "image/png;q=many")],
)
def test_a_form_that_there_is_not_is_406_and_lists_those_there_are(gateway, file_of, path, accept):
    answer = post(gateway, path, file_of[path], accept=accept)
    assert answer.status_code == 406
    assert "application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "prompts", "options", "words"),
    [
        (VOLUMES, [], {}, "neither prompt nor preset"),
        (VOLUMES, [" "], {}, "prompt is empty"),
        (VOLUMES, ["liver & spleen"], {}, "separates prompts"),
        (IMAGES, [], {}, "nothing to look for"),
        (IMAGES, ["liver"], {"joint": "perhaps"}, "joint is true or false"),
        (IMAGES, ["liver"], {"tile": "yes"}, "tile is true or false"),
        (IMAGES, ["liver"], {"p_value_threshold": "small"}, "p_value_threshold is a number"),
        (VOLUMES, ["liver"], {"joint": "true"}, "unknown part"),
        (VOLUMES, ["liver"], {"output": "masks"}, "output is unknown; send one of nifti_file, masks_file"),
        (VOLUMES, ["liver"], {"output": "uncertainty_file"}, "send draws, for example 8"),
        (VOLUMES, ["liver"], {"draws": "2.5"}, "draws is a whole number"),
        (VOLUMES, ["liver"], {"draws": "1" * 30}, "draws is a whole number"),
        (VOLUMES, ["liver"], {"instances": "2"}, "instances is true or false"),
        (VOLUMES, ["liver"], {"intensity": ["auto", "none"]}, "more than one intensity"),
    ],
)
def test_what_the_model_could_not_take_is_refused_with_the_way_out(
    gateway, models, file_of, path, prompts, options, words
):
    answer = post(gateway, path, file_of[path], prompts, **options)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert not models.requests


@pytest.mark.parametrize(("kind", "status"), STATUS_OF_KIND.items())
@pytest.mark.parametrize("path", [VOLUMES, IMAGES])
def test_every_kind_of_failure_has_its_status(before, file_of, path, kind, status):
    gateway = before(FakeModels(error=TritonError(kind, "a sentence")))
    answer = post(gateway, path, file_of[path])
    assert answer.status_code == status
    assert answer.json()["message"] == answer.json()["error"]["message"] == "a sentence"
    assert ("retry-after" in answer.headers) == (status in (429, 503))


class OddModels(FakeModels):
    async def infer(self, model, inputs, outputs, **options):
        return {name: np.array([self.odd], np.object_) for name in outputs[self.n_missing :]}


@pytest.mark.parametrize("odd", [b"{}", b"[]", b"", b"not JSON", b'{"data": "%"}', b"\xff", b'{"data": 1}'])
@pytest.mark.parametrize(("path", "accept"), [(VOLUMES, "application/gzip"), (IMAGES, "image/png")])
@pytest.mark.parametrize("n_missing", [0, 1])
def test_an_answer_that_no_model_gives_is_a_failed_step(before, file_of, path, accept, odd, n_missing):
    models = OddModels()
    models.odd, models.n_missing = odd, n_missing
    assert post(before(models), path, file_of[path], accept=accept).status_code == 424


def test_more_labels_than_a_png_holds_are_refused_with_the_way_out(gateway, picture_file):
    answer = post(gateway, IMAGES, picture_file, [f"p{k}" for k in range(256)])
    assert answer.status_code == 400
    assert "application/x-npz" in answer.json()["message"]


def test_the_catalogue_is_listed(gateway):
    rows = gateway.http.get("/v1/structures").json()
    assert len(rows) == len(structures())
    assert {"id", "name", "prompt", "rgb", "presets"} <= rows[0].keys()


@pytest.mark.parametrize("query", [{"model": "2d"}, {"model": "3d", "modality": "CT"}, {"preset": "ct-abdomen"}])
def test_a_part_of_the_catalogue_is_listed(gateway, query):
    rows = gateway.http.get("/v1/structures", params=query).json()
    assert [row["id"] for row in rows] == [row.id for row in structures(**query)]


def test_a_model_that_the_catalogue_has_not_is_refused(gateway):
    assert gateway.http.get("/v1/structures?model=4d").status_code == 400


def test_models_say_whether_they_are_ready(before):
    gateway = before(FakeModels(models=("medimageparse",)))
    listed = gateway.http.get("/v1/models").json()["models"]
    assert listed == [{"name": "medimageparse_3d", "ready": False}, {"name": "medimageparse", "ready": True}]


@pytest.mark.parametrize(("models", "status"), [((), 503), (("medimageparse",), 200)])
def test_it_is_ready_when_a_model_is_and_lives_without_any(before, models, status):
    gateway = before(FakeModels(models=models))
    assert gateway.http.get("/ready").status_code == status
    assert (gateway.http.get("/").status_code, gateway.http.get("/").text) == (200, "Healthy")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", VOLUMES, 405), ("DELETE", "/", 405)]
)
def test_paths_and_methods_that_there_are_not_are_told_in_our_form(gateway, method, path, status):
    answer = gateway.http.request(method, path)
    assert answer.status_code == status
    assert json.loads(answer.content)["error"]["message"]
