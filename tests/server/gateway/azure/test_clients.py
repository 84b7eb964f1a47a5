"""Clients that Azure's users have: aiohttp, curl, urllib, azure-core and azure-ai-ml."""

import asyncio
import json
import shutil
import subprocess
import urllib.request

import aiohttp
import pytest
from helpers.azure_requests import table_of
from helpers.image_answers import image_file

needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def body(xrays):
    return table_of(image_file(xrays[0][::2, ::2]), text="heart")


@pytest.fixture(scope="module")
def expected(gateway, body):
    answer = gateway.ask("/score", body)
    assert answer.status == 200
    return answer.json()


@pytest.fixture
def file(tmp_path, body):
    path = tmp_path / "request.json"
    path.write_text(json.dumps(body))
    return path


def curl(gateway, file, *options):
    command = ["curl", "-sS", "-H", JSON, "--data-binary", f"@{file}", *options, f"{gateway.url}/score"]
    return subprocess.run(command, capture_output=True, check=True, timeout=300)


def test_aiohttp_reads_the_answer_as_json_whole_or_in_chunks_and_errors_too(gateway, body, expected):
    async def ask(data):
        async with aiohttp.ClientSession(trust_env=False) as session:
            headers = {"Content-Type": "application/json"}
            async with session.post(f"{gateway.url}/score", data=data, headers=headers) as answer:
                return answer.status, await answer.json()

    async def in_chunks():
        content = json.dumps(body).encode()
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    assert asyncio.run(ask(json.dumps(body))) == (200, expected)
    assert asyncio.run(ask(in_chunks())) == (200, expected)
    status, error = asyncio.run(ask("{"))
    assert (status, error["error"]["code"]) == (400, "BadRequest")


@needs_curl
def test_curl_reads_a_compressed_answer(gateway, file, expected):
    assert json.loads(curl(gateway, file, "--compressed").stdout) == expected
    shown = curl(gateway, file, "--compressed", "-v").stderr.decode().lower()
    assert "content-encoding: gzip" in shown


@needs_curl
@pytest.mark.parametrize(
    "options", [("-H", "Expect: 100-continue"), ("-H", "Transfer-Encoding: chunked"), ("--http1.0",)]
)
def test_curl_may_wait_for_leave_or_send_chunks(gateway, file, expected, options):
    assert json.loads(curl(gateway, file, *options).stdout) == expected


def test_urllib_gets_no_gzip(gateway, body, expected):
    request = urllib.request.Request(
        f"{gateway.url}/score", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        assert answer.headers["content-encoding"] is None
        assert json.load(answer) == expected
