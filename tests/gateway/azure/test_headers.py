"""Types, ids and gzip, as Azure's clients write them."""

import pytest
from medimageparse_gateway.azure_headers import SCORING, ids_of, is_json, takes_gzip, tidy


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        " application/json ; x=y",
        "application/vnd.api+json",
        "application/problem+json; v=1",
    ],
)
def test_json_is_json_whatever_its_parameters(content_type):
    assert is_json(content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        *("", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=json", "text/plain"),
        *("application/jsonp", "application/xml; application/json", "json", "application/+json", "xapplication/json"),
    ],
)
def test_other_types_are_not(content_type):
    assert not is_json(content_type)


@pytest.mark.parametrize("accepted", ["gzip", "gzip, deflate", "deflate, gzip;q=0.5", "br,GZIP", "x-gzip", "gzip; q=1"])
def test_gzip_is_sent_to_who_asks_for_it(accepted):
    assert takes_gzip(accepted)


@pytest.mark.parametrize("accepted", ["", "identity", "deflate, br", "*", "gzip;q=0", "gzip; q=0.000, br", "gzipped"])
def test_gzip_is_sent_to_nobody_else(accepted):
    assert not takes_gzip(accepted)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({}, {"x-ms-request-id": "a"}),
        ({"x-ms-client-request-id": "b"}, {"x-ms-client-request-id": "b", "x-ms-request-id": "b"}),
        (
            {"x-ms-client-request-id": "b", "x-ms-request-id": "c"},
            {"x-ms-client-request-id": "b", "x-ms-request-id": "c"},
        ),
        ({"x-ms-request-id": "c"}, {"x-ms-request-id": "c"}),
    ],
)
def test_ids_of_azure_come_back(sent, expected):
    assert ids_of(sent, "a") == expected


@pytest.mark.parametrize(
    "path", ["/score", "/score/", "//score", "/medimageparse/score", "/medimageparse_3d//score/", "/invocations"]
)
def test_paths_that_score(path):
    assert SCORING.fullmatch(tidy(path))


@pytest.mark.parametrize(
    "path", ["/", "/scores", "/v1/images", "/medimageparse_2d/score", "/score/x", "score", "/ready"]
)
def test_paths_that_do_not(path):
    assert not SCORING.fullmatch(tidy(path))
