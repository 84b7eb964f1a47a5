"""/swagger.json is valid in each of its versions."""

import pytest
from medimageparse_gateway.azure_swagger import PATHS, swagger
from openapi_spec_validator import OpenAPIV2SpecValidator, OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

VALIDATORS = {"2": OpenAPIV2SpecValidator, "3": OpenAPIV30SpecValidator, "3.1": OpenAPIV31SpecValidator}


@pytest.mark.parametrize("version", VALIDATORS)
def test_each_version_is_valid_and_names_every_address(version):
    document = swagger(version)
    VALIDATORS[version](document).validate()
    assert {"/", *PATHS} == set(document["paths"])


def test_the_gateway_answers_with_them(gateway):
    assert gateway.http.get("/swagger.json").json()["swagger"] == "2.0"
    for version in VALIDATORS:
        assert gateway.http.get("/swagger.json", params={"version": version}).json() == swagger(version)


@pytest.mark.parametrize("version", ["9", "", "2.0", "3.0", "x"])
def test_there_are_no_others(gateway, version):
    answer = gateway.http.get("/swagger.json", params={"version": version})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"]
