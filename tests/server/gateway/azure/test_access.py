"""Keys, limits, types and ids at the door of /score."""

import base64
import json
import shutil
import subprocess

import pytest
from helpers.azure_requests import table_of
from helpers.azure_toolkit import Refused, Toolkit
from helpers.image_answers import image_file

from .conftest import KEYS

LIMIT = 64 * 2**20  # of the gateway with keys
JSON = {"content_type": "application/json"}
KEY = {"authorization": f"Bearer {KEYS['research']}"}


@pytest.fixture(scope="module")
def picture(xrays):
    return image_file(xrays[0][::2, ::2])


def assert_error(answer, status):
    """As every client of Azure reads it."""
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["message"] == answer.json()["error"]["message"] != ""
    assert answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status in (429, 503))


@pytest.mark.parametrize("key", [None, "wrong", KEYS["research"][:-1], KEYS["research"].upper(), ""])
def test_the_toolkit_without_a_known_key_calls_once(locked, xrays, key):
    toolkit = Toolkit(f"{locked.url}/score", key)
    with pytest.raises(Refused, match="key_auth_access_denied") as refused:
        toolkit.submit(xrays[:1], ["heart"])
    assert refused.value.headers["www-authenticate"] == "Bearer"
    assert toolkit.calls == [401]


@pytest.mark.parametrize(
    "authorization", ["Basic cmVzZWFyY2g6eA==", KEYS["research"], "Bearer", f"Basic {KEYS['research']}"]
)
def test_another_scheme_is_refused(locked, picture, authorization):
    assert_error(locked.ask("/score", table_of(picture), authorization=authorization), 401)


@pytest.mark.parametrize("key", KEYS.values())
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_each_key_works_with_its_scheme_in_any_case(locked, picture, key, scheme):
    assert locked.ask("/score", table_of(picture), authorization=f"{scheme} {key}").status == 200


def test_a_large_body_with_a_wrong_key_is_answered_and_not_cut_off(locked):
    for _ in range(5):
        assert_error(locked.ask("/score", bytes(LIMIT), authorization="Bearer wrong", **JSON), 401)


def test_one_byte_over_the_limit_is_refused_and_takes_no_memory(locked, picture):
    assert locked.ask("/score", table_of(picture), **KEY).status == 200
    before = locked.memory_bytes()
    assert_error(locked.ask("/score", bytes(LIMIT + 1), **KEY, **JSON), 413)
    assert locked.memory_bytes() - before < LIMIT / 4
    in_chunks = iter([bytes(2**20)] * 65)
    assert_error(locked.ask("/score", in_chunks, **KEY, **JSON), 413)
    assert locked.memory_bytes() - before < LIMIT * 1.5  # it is kept up to the limit


def test_a_large_body_takes_a_few_times_its_size_whatever_letters_are_in_it(locked):
    """Python's own reader of JSON keeps four bytes for each letter as soon as one is an emoji."""
    image = base64.encodebytes(bytes(46 * 2**20))
    before = locked.memory_bytes()
    body = json.dumps({"input_data": [{"image": image.decode(), "text": "🫀"}]}, ensure_ascii=False).encode()
    answer = locked.ask("/score", body, **KEY, **JSON)
    assert_error(answer, 400)
    assert "neither a PNG, JPEG, TIFF, BMP or WebP file" in answer.json()["message"]
    assert locked.memory_bytes() - before < 4.5 * LIMIT


def test_a_body_of_the_limit_is_read(locked):
    answer = locked.ask("/score", b" " * LIMIT, **KEY, **JSON)
    assert_error(answer, 400)
    assert "not JSON" in answer.json()["message"]


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
def test_a_bare_curl_is_told_to_name_the_type(gateway, tmp_path):
    command = ["curl", "-sS", "-w", "\n%{http_code}", "-d", '{"input_data": []}', f"{gateway.url}/score"]
    body, status = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rsplit("\n", 1)
    assert status == "415"
    assert "send Content-Type: application/json" in body


def test_every_error_is_an_object_with_its_message_twice(gateway, locked, picture):
    broken = base64.b64encode(picture[: len(picture) // 2]).decode()
    for answer, status in (
        (gateway.ask("/score", b"{", **JSON), 400),
        (gateway.ask("/score", table_of(b"GIF89a")), 400),
        (gateway.ask("/medimageparse/score", {"input_data": [{"image": broken, "text": "heart"}]}), 400),
        (gateway.ask("/score", table_of(picture, text="heart &")), 400),
        (locked.ask("/score", table_of(picture)), 401),
        (gateway.ask("/score", method="GET"), 405),
        (gateway.ask("/score", b"x", content_type="text/plain"), 415),
        (gateway.ask("/score", table_of(picture), x_request_id="i" * 101), 431),
    ):
        assert_error(answer, status)
    assert gateway.ask("/nothing", method="GET").json()["error"]["message"]


def test_the_front_door_lives_without_a_key(locked):
    assert (locked.ask("/").status, locked.ask("/").body) == (200, b"Healthy")
    assert locked.ask("/ready").status == 200
    assert locked.ask("/swagger.json").json()["swagger"] == "2.0"
    assert locked.ask("/swagger.json?version=3").json()["openapi"] == "3.0.3"
    assert locked.ask("/swagger.json?version=9").status == 404


def test_ids_come_back(gateway, picture):
    ids = {"x_request_id": "one", "x_ms_client_request_id": "two", "x_ms_request_id": "three"}
    answer = gateway.ask("/score", table_of(picture), **ids)
    assert [answer.headers[name.replace("_", "-")] for name in ids] == ["one", "two", "three"]
    assert (answer.status, answer.headers["x-ms-run-function-failed"]) == (200, "False")
    assert int(answer.headers["x-ms-run-fn-exec-ms"]) > 0
    assert "x-ms-server-version" not in answer.headers
