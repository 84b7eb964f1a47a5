"""Azure's and mlflow's addresses over HTTP, before models that stand in for Triton's."""

import base64
import gzip
import hashlib
import json

import pytest
from helpers.azure_requests import table_of
from helpers.gateway import FakeModels, running_gateway
from medimageparse_gateway.connections import KEEP_ALIVE_S
from medimageparse_gateway.errors import RETRY_AFTER_S, TritonError
from medimageparse_gateway.settings import Key

JSON = {"content-type": "application/json"}
SCORING = ("/score", "/medimageparse/score", "/medimageparse_3d/score")
PADDED = 131_072  # bytes that a volume's file must be longer than


@pytest.fixture
def body(picture_file):
    return table_of(picture_file)


def test_an_image_is_answered_with_one_object_for_each_row(gateway, models, picture_file):
    answer = gateway.http.post("/score", json=table_of(picture_file, picture_file, params="sitk"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    rows = answer.json()
    assert len(rows) == 2
    for row in rows:
        assert list(row) == ["image_features", "text_features"]
        features = json.loads(row["image_features"])
        assert (features["shape"][0], features["dtype"], len(row["text_features"])) == (2, "uint8", 2)
    asked = {"model": "medimageparse", "outputs": ["image_features", "text_features"]}
    assert models.requests == [asked | {"text": b"liver & spleen", "output": "probabilities"}] * 2


def test_a_volume_is_answered_with_a_long_file(gateway, models, volume_file):
    [row] = gateway.http.post("/score", json=table_of(volume_file, params={"intensity": "none", "a": 1})).json()
    assert list(row) == ["nifti_file"]
    assert len(base64.b64decode(json.loads(row["nifti_file"])["data"])) > PADDED
    asked = {"model": "medimageparse_3d", "outputs": ["nifti_file"], "output": "nifti_file", "intensity": "none"}
    assert models.requests == [asked | {"text": b"liver & spleen"}]


@pytest.mark.parametrize("path", ["/score/", "//score", "/medimageparse//score", "/medimageparse/score/", "/score///"])
def test_slashes_too_many_lead_to_the_same(gateway, models, body, path):
    assert gateway.http.post(gateway.url + path, json=body).status_code == 200
    assert models.requests[0]["model"] == "medimageparse"


def test_metrics_count_them_under_one_route(gateway, body):
    def count():
        lines = gateway.http.get("/metrics").text.splitlines()
        name = 'medimageparse_gateway_requests_total{code="200",route="/score"}'
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    before = count()
    for path in ("/score", "/score/", "//score"):
        assert gateway.http.post(gateway.url + path, json=body).status_code == 200
    assert count() == before + 3


@pytest.mark.parametrize("path", ["/scores", "/score/v1", "/medimageparse_2d/score", "/medimageparse", "/SCORE"])
def test_other_paths_are_not_found(gateway, body, path):
    answer = gateway.http.post(path, json=body)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "NotFound"


@pytest.mark.parametrize("path", SCORING)
def test_only_post_is_taken_and_options_has_an_empty_answer(gateway, path):
    for method in ("GET", "PUT", "DELETE", "PATCH", "FOO"):
        answer = gateway.http.request(method, path + "?input_data=1")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
        assert answer.json()["message"] == "this address takes POST only"
    assert gateway.http.head(path).status_code == 405
    options = gateway.http.options(path)
    assert (options.status_code, options.content) == (200, b"")
    assert not [name for name in options.headers if name.startswith("access-control")]


def test_options_needs_no_key_and_all_else_does(body):
    key = Key("radiology", hashlib.sha256(b"secret").hexdigest())
    with running_gateway(keys=(key,)) as gateway:
        assert gateway.http.options("/score").status_code == 200
        for open_path in ("/", "/swagger.json", "/ping", "/health", "/version"):
            assert gateway.http.get(open_path).status_code == 200
        for closed in (*SCORING, "/invocations", "//score", "/score/"):
            refused = gateway.http.post(gateway.url + closed, json=body)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert "key_auth_access_denied" in refused.json()["message"]
            assert refused.headers["x-request-id"]
            assert (
                gateway.http.post(gateway.url + closed, json={}, headers={"authorization": "bearer secret"}).status_code
                == 400
            )


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "text/csv"])
def test_another_type_is_refused_before_anything_is_read(gateway, body, content_type):
    headers = {} if content_type is None else {"content-type": content_type}
    answer = gateway.http.post("/score", content=json.dumps(body), headers=headers)
    assert answer.status_code == 415
    assert answer.json()["message"] == "the body is of another type; send Content-Type: application/json"
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.x+json"])
def test_json_by_another_name_is_taken(gateway, body, content_type):
    answer = gateway.http.post("/score", content=json.dumps(body), headers={"content-type": content_type})
    assert answer.status_code == 200


def test_gzip_is_answered_to_who_asks(gateway, body):
    plain = gateway.http.post("/score", json=body, headers={"accept-encoding": "identity"})
    packed = gateway.http.post("/score", json=body, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert int(plain.headers["content-length"]) == len(plain.content)
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == plain.json()
    with gateway.http.stream("POST", "/score", json=body, headers={"accept-encoding": "gzip"}) as raw:
        assert gzip.decompress(b"".join(raw.iter_raw())) == plain.content


def test_ids_come_back_on_every_answer_and_a_long_one_is_refused(gateway, body):
    ids = {"x-request-id": "a", "x-ms-client-request-id": "b", "x-ms-request-id": "c" * 100}
    for content, status in ((body, 200), ({}, 400)):
        answer = gateway.http.post("/score", json=content, headers=ids)
        assert answer.status_code == status
        assert {name: answer.headers[name] for name in ids} == ids
        assert answer.headers["x-ms-run-function-failed"] == "False"
        assert int(answer.headers["x-ms-run-fn-exec-ms"]) >= 0
    for name in ids:
        answer = gateway.http.post("/score", json=body, headers={name: "d" * 101})
        assert answer.status_code == 431
        assert "over 100 characters" in answer.json()["error"]["message"]
        assert answer.headers[name] != "d" * 101 if name in answer.headers else True


@pytest.mark.parametrize(
    ("kind", "status", "retry"),
    [
        ("invalid_argument", 400, False),
        ("queue_full", 429, True),
        ("timeout", 408, False),
        ("cancelled", 408, False),
        ("unavailable", 503, True),
        ("internal", 424, False),
    ],
)
def test_only_a_full_queue_and_an_absent_model_ask_to_come_again(before, body, kind, status, retry):
    gateway = before(FakeModels(error=TritonError(kind, "the sentence")))
    answer = gateway.http.post("/score", json=body)
    assert answer.status_code == status
    assert answer.json()["message"] == answer.json()["error"]["message"] == "row 0: the sentence"
    assert ("retry-after" in answer.headers) == retry
    assert answer.headers["x-ms-run-function-failed"] == "True"
    assert answer.headers.get("ms-azureml-model-error-statuscode") == ("500" if status == 424 else None)
    assert answer.headers.get("ms-azureml-model-error-reason") == ("model_error" if status == 424 else None)


def test_without_rows_there_is_an_empty_list_and_no_model_is_asked(gateway, models):
    for path in SCORING:
        assert gateway.http.post(path, json=table_of()).json() == []
    assert gateway.http.post("/invocations", json={"inputs": []}).json() == {"predictions": []}
    assert models.requests == []


def test_a_path_names_the_model_whatever_the_file_and_the_deployment(gateway, models, picture_file, volume_file):
    deployment = {"azureml-model-deployment": "medimageparse_3d"}
    assert gateway.http.post("/medimageparse/score", json=table_of(picture_file), headers=deployment).is_success
    assert models.requests[-1]["model"] == "medimageparse"
    assert gateway.http.post("/score", json=table_of(volume_file), headers=deployment).is_success
    assert models.requests[-1]["model"] == "medimageparse_3d"
    deployment = {"azureml-model-deployment": "medimageparse-v2"}
    assert gateway.http.post("/score", json=table_of(picture_file), headers=deployment).is_success
    assert models.requests[-1]["model"] == "medimageparse"


def test_a_file_of_no_kind_is_refused_where_both_are_served(gateway, models):
    answer = gateway.http.post("/score", json=table_of(b"some text"))
    assert answer.status_code == 400
    assert "neither a PNG, JPEG, TIFF, BMP or WebP file nor a NIfTI file" in answer.json()["message"]
    assert models.requests == []


@pytest.mark.parametrize("model", ["medimageparse", "medimageparse_3d"])
def test_the_only_model_that_is_served_gets_every_file(model, picture_file):
    models = FakeModels(models=(model,), error=TritonError("invalid_argument", "the model's sentence"))
    with running_gateway(models) as gateway:
        for file, deployment in ((picture_file, "medimageparse"), (b"some text", "medimageparse_3d")):
            answer = gateway.http.post("/score", json=table_of(file), headers={"azureml-model-deployment": deployment})
            assert answer.json()["message"] == "row 0: the model's sentence"
            assert models.requests[-1]["model"] == model


def test_a_model_that_restarts_is_not_taken_for_one_that_is_not_there(picture_file, volume_file):
    models = FakeModels()
    with running_gateway(models) as gateway:
        assert gateway.http.post("/score", json=table_of(picture_file)).status_code == 200
        models.models = ("medimageparse_3d",)
        assert gateway.http.post("/score", json=table_of(picture_file)).status_code == 200
        assert models.requests[-1]["model"] == "medimageparse"


def test_who_hangs_up_cancels_the_work(before, body):
    models = FakeModels(is_held=True)
    gateway = before(models)
    content = json.dumps(body).encode()
    with gateway.connect() as caller:
        head = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
        caller.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + content)
        assert models.began.wait(60)
    assert models.cancelled.wait(60)


def test_mlflows_answers_and_errors_have_its_form(gateway, picture_file):
    rows = table_of(picture_file)["input_data"]
    answer = gateway.http.post("/invocations", json={"dataframe_split": rows})
    [prediction] = answer.json()["predictions"]
    assert list(prediction) == ["image_features", "text_features"]
    csv = "image,text\n" + base64.b64encode(picture_file).decode() + ",liver & spleen\n"
    from_csv = gateway.http.post("/invocations", content=csv, headers={"content-type": "text/csv; charset=utf-8"})
    assert from_csv.json() == answer.json()
    for content, status, code in (({"input_data": rows}, 400, "BAD_REQUEST"), ({"inputs": 1}, 400, "BAD_REQUEST")):
        error = gateway.http.post("/invocations", json=content)
        assert (error.status_code, error.json()["error_code"]) == (status, code)
        assert error.json()["message"]
    wrong = gateway.http.post("/invocations", content=b"x", headers={"content-type": "text/plain"})
    assert (wrong.status_code, wrong.json()["error_code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    for path in ("/ping", "/health"):
        assert gateway.http.get(path).text == "\n"
    assert gateway.http.get("/version").text.strip()


def test_the_fault_of_the_gateway_is_a_500_with_a_fixed_sentence_and_its_ids(before, body):
    gateway = before(FakeModels(error=RuntimeError("a secret")))
    answer = gateway.http.post("/score", json=body, headers={"x-request-id": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
    assert answer.json()["message"] == "the gateway failed; its log says where"


def test_the_time_limit_of_the_settings_goes_to_the_model(body):
    models = FakeModels()
    with running_gateway(models, timeout_s=7.0) as gateway:
        assert gateway.http.post("/score", json=body).is_success
    assert 0 < models.timeouts_s[0] <= 7


def test_a_request_that_takes_too_long_is_408(body):
    models = FakeModels(is_held=True)
    with running_gateway(models, timeout_s=0.2) as gateway:
        answer = gateway.http.post("/score", json=body)
        assert answer.status_code == 408
        assert "retry-after" not in answer.headers
        assert models.cancelled.wait(60)


def test_a_body_over_the_limit_is_413_whether_its_length_is_told_or_not(body):
    content = json.dumps(body).encode()
    with running_gateway(max_body_bytes=len(content)) as gateway:
        assert gateway.http.post("/score", content=content, headers=JSON).status_code == 200
        for longer in (content + b" ", iter([content, b" "])):
            answer = gateway.http.post("/score", content=longer, headers=JSON)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "RequestEntityTooLarge"
            assert answer.headers["x-request-id"]


def test_who_waits_as_long_as_retry_after_says_finds_the_connection_open():
    """azure-core waits and sends on the same connection; if it closes in this moment, that is an error to it."""
    assert max(int(seconds) for seconds in RETRY_AFTER_S.values()) < KEEP_ALIVE_S
