"""What is described is what there is."""

import pytest
from medimageparse_gateway import rest
from medimageparse_gateway.answers import EVENT_STREAM, IMAGE_ANSWERS, VOLUME_ANSWERS, VOLUME_FILES
from medimageparse_gateway.errors import STATUS_OF_KIND
from medimageparse_gateway.openapi import ERRORS, OPTIONS
from openapi_spec_validator import OpenAPIV31SpecValidator


@pytest.fixture
def described(gateway):
    answer = gateway.http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def test_every_route_of_v1_is_described_and_no_other(described):
    routes = {route.path: {method.lower() for method in route.methods - {"HEAD"}} for route in rest.routes()}
    assert {path: set(methods) for path, methods in described["paths"].items()} == routes


@pytest.mark.parametrize(
    ("path", "options", "medias"),
    [
        ("/v1/volumes", rest.VOLUME_OPTIONS, (*VOLUME_ANSWERS, EVENT_STREAM)),
        ("/v1/images", rest.IMAGE_OPTIONS, tuple(IMAGE_ANSWERS)),
    ],
)
def test_parts_and_answers_are_those_that_there_are(gateway, described, path, options, medias):
    operation = described["paths"][path]["post"]
    schema = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert list(schema["properties"]) == ["image", "prompt", *options]
    offered = gateway.http.post(path, headers={"accept": "text/nothing"}).json()["message"]
    assert all(media in offered for media in operation["responses"]["200"]["content"])
    assert set(medias) <= set(operation["responses"]["200"]["content"])


def test_every_choice_of_an_option_is_taken(before, models, volume_file, picture_file, gateway):
    for path, file, options in (
        ("/v1/volumes", volume_file, rest.VOLUME_OPTIONS),
        ("/v1/images", picture_file, rest.IMAGE_OPTIONS),
    ):
        for name in options:
            for choice in OPTIONS[name].get("enum", []):
                form = {"files": {"image": file}, "data": {"prompt": "liver", name: choice}}
                if choice == "uncertainty_file":
                    form["data"]["draws"] = "2"
                assert gateway.http.post(path, **form, headers={"accept": "application/json"}).status_code == 200
                sent = models.requests[-1][name]
                assert sent == choice or (sent, choice in VOLUME_FILES) == ("nifti_file", True)


def test_every_status_that_a_model_can_cause_is_described():
    assert set(STATUS_OF_KIND.values()) <= set(ERRORS)


def test_it_is_valid_openapi(described):
    OpenAPIV31SpecValidator(described).validate()
    names = [op["operationId"] for methods in described["paths"].values() for op in methods.values()]
    assert len(set(names)) == len(names)


def test_the_page_for_people_says_the_same_without_a_script(gateway, described):
    page = gateway.http.get("/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    for path, methods in described["paths"].items():
        assert path in page.text
        assert all(operation["summary"] in page.text for operation in methods.values())
    assert all(name in page.text for name in OPTIONS)
