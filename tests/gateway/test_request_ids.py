"""The id of a request: the caller's or a made one goes to the model and comes back with every answer."""

import re

import numpy as np
import pytest
from helpers.azure_requests import table_of
from helpers.gateway import FakeModels, running_gateway
from helpers.image_answers import image_file
from medimageparse_gateway.errors import TritonError
from medimageparse_gateway.request_ids import id_of

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PATIENT = "Jane Doe 1970"
FILE = image_file(np.zeros((20, 30, 3), np.uint8))


def send(gateway, path="/v1/images", accept="*/*", **ids):
    form = {"files": {"image": FILE}, "data": {"prompt": ["liver"]}}
    headers = {"accept": accept} | {name.replace("_", "-"): value for name, value in ids.items()}
    return gateway.http.post(path, headers=headers, **form)


def score(gateway, **ids):
    return gateway.http.post("/score", json=table_of(FILE), headers={name.replace("_", "-"): ids[name] for name in ids})


@pytest.mark.parametrize("accept", ["image/png", "application/json", "text/event-stream"])
def test_the_callers_id_goes_to_the_model_and_back(accept):
    models = FakeModels(slices=2)
    with running_gateway(models) as gateway:
        answer = send(gateway, accept=accept, x_request_id="run-4.7")
    assert answer.status_code == 200
    assert (models.ids, answer.headers["x-request-id"]) == (["run-4.7"], "run-4.7")


@pytest.mark.parametrize("word", [PATIENT, "a" * 65, "", "a/b"])
def test_a_word_that_is_no_id_goes_nowhere_and_a_new_one_does(word):
    models = FakeModels()
    with running_gateway(models) as gateway:
        first, second = (send(gateway, x_request_id=word).headers["x-request-id"] for _ in range(2))
    assert UUID.fullmatch(first)
    assert UUID.fullmatch(second)
    assert first != second
    assert models.ids == [first, second]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TritonError("invalid_argument", "send another"), 400),
        (TritonError("internal", "failed"), 424),
        (RuntimeError(PATIENT), 500),
    ],
)
def test_it_comes_back_with_errors_too(error, status):
    with running_gateway(FakeModels(error=error)) as gateway:
        answer = send(gateway, x_request_id="run-4.7")
    assert (answer.status_code, answer.headers["x-request-id"]) == (status, "run-4.7")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("GET", "/"), ("DELETE", "/v1/images"), ("GET", "/docs")]
)
def test_it_comes_back_from_every_address(method, path):
    with running_gateway() as gateway:
        answer = gateway.http.request(method, path, headers={"x-request-id": "run-4.7"})
    assert answer.headers["x-request-id"] == "run-4.7"


def test_the_id_of_azures_clients_is_taken_where_there_is_no_other():
    assert id_of({"x-request-id": "a", "x-ms-client-request-id": "b"}) == "a"
    assert id_of({"x-ms-client-request-id": "b"}) == "b"
    assert id_of({"x-request-id": PATIENT, "x-ms-client-request-id": "b"}) == "b"
    assert UUID.fullmatch(id_of({"x-request-id": PATIENT, "x-ms-client-request-id": PATIENT}))


@pytest.mark.parametrize("ids", [{"x_request_id": "run-4.7"}, {"x_ms_client_request_id": "run-4.7"}])
def test_the_rule_holds_for_score_too(ids):
    models = FakeModels()
    with running_gateway(models) as gateway:
        answer = score(gateway, **ids)
        other = score(gateway, x_request_id=PATIENT)
    assert answer.headers["x-request-id"] == answer.headers["x-ms-request-id"] == "run-4.7"
    assert UUID.fullmatch(other.headers["x-request-id"])
    assert PATIENT not in str(other.headers)
    assert models.ids == ["run-4.7", other.headers["x-request-id"]]
