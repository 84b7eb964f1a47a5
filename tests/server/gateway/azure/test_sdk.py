"""Microsoft's azure-core and azure-ai-ml read our errors, and try again only where they are asked to."""

import pytest
from helpers.azure_requests import table_of
from helpers.gateway import FakeModels, running_gateway
from helpers.image_answers import image_file
from medimageparse_gateway.errors import RETRY_AFTER_S, TritonError

from .conftest import KEYS

pytestmark = pytest.mark.filterwarnings("ignore")  # those of Microsoft's packages


@pytest.fixture(scope="module")
def sdk():
    """(pipeline, validate_response), as azure-ai-ml calls an endpoint."""
    pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed: pip install -e '.[azure]'")
    from azure.ai.ml._utils._endpoint_utils import validate_response
    from azure.ai.ml._utils._http_utils import HttpPipeline
    from azure.core.pipeline.policies import RetryPolicy

    return HttpPipeline(retry_policy=RetryPolicy(retry_backoff_factor=0.001)), validate_response


@pytest.fixture(scope="module")
def body(xrays):
    return table_of(image_file(xrays[0][::2, ::2]), text="heart")


def post(sdk, url, body, key=KEYS["radiology"]):
    pipeline, validate_response = sdk
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}", "azureml-model-deployment": "blue"}
    response = pipeline.post(f"{url}/score", json=body, headers=headers)
    validate_response(response)
    return response


def test_a_right_request_is_answered(sdk, locked, body):
    assert list(post(sdk, locked.url, body).json()[0]) == ["image_features", "text_features"]


def test_a_wrong_key_is_an_authentication_error(sdk, locked, body):
    from azure.core.exceptions import ClientAuthenticationError

    with pytest.raises(ClientAuthenticationError) as refused:
        post(sdk, locked.url, body, key="wrong")
    assert "key_auth_access_denied" in refused.value.response.text()


def test_a_wrong_request_is_an_error_with_our_sentence(sdk, locked):
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError, match="row 0: image is null; send a string") as refused:
        post(sdk, locked.url, {"input_data": {"columns": ["image", "text"], "data": [[None, "heart"]]}})
    assert refused.value.status_code == 400


@pytest.mark.parametrize(
    ("kind", "status", "calls"), [("internal", 424, 1), ("queue_full", 429, 4), ("unavailable", 503, 4)]
)
def test_failures_are_errors_with_our_sentence_and_only_some_are_tried_again(
    sdk, body, monkeypatch, kind, status, calls
):
    from azure.core.exceptions import HttpResponseError

    for tried_again in RETRY_AFTER_S:
        monkeypatch.setitem(RETRY_AFTER_S, tried_again, "0.1")
    models = FakeModels(error=TritonError(kind, "our sentence"))
    with running_gateway(models) as gateway, pytest.raises(HttpResponseError) as failed:
        post(sdk, gateway.url, body)
    assert failed.value.status_code == status
    assert "our sentence" in failed.value.response.text()
    assert len(models.requests) == calls
