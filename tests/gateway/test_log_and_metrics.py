"""What the log and Prometheus are told, and what they are not."""

import hashlib
import json
import logging
import re

import pytest
from helpers.gateway import PATIENCE_S, FakeModels, running_gateway
from medimageparse_gateway.errors import FAULT, TritonError
from medimageparse_gateway.log import ACCESS, LOG, Lines, set_up
from medimageparse_gateway.settings import Key
from prometheus_client.parser import text_string_to_metric_families

SECRET = "zebrafish-7391"  # stands for a prompt, a key, a name


@pytest.fixture
def lines(caplog):
    """The log so far, as it is written."""
    caplog.set_level(logging.INFO)
    return lambda: [json.loads(Lines().format(record)) for record in caplog.records if "httpx" not in record.name]


def samples(gateway):
    """Prometheus's own reading: name and labels -> value."""
    families = text_string_to_metric_families(gateway.http.get("/metrics").text)
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def send(gateway, file, prompt="liver", **headers):
    form = {"files": {"image": (f"{SECRET}.nii", file)}, "data": {"prompt": [prompt]}}
    return gateway.http.post("/v1/volumes", headers=headers, **form)


def test_a_request_is_one_line_and_counted(volume_file, lines):
    with running_gateway() as gateway:
        answer = send(gateway, volume_file, **{"x-request-id": "run-4.7"})
        counted = samples(gateway)
    (line,) = [line for line in lines() if line.get("route") == "/v1/volumes"]
    assert {**line, "time": "", "seconds": 0} == {
        "time": "",
        "level": "info",
        "request_id": "run-4.7",
        "caller": "",
        "route": "/v1/volumes",
        "method": "POST",
        "status": 200,
        "seconds": 0,
        "bytes_in": int(answer.request.headers["content-length"]),
        "bytes_out": len(answer.content),
    }
    route, prefix = ("route", "/v1/volumes"), "medimageparse_gateway_"
    assert counted[prefix + "requests_total", ("code", "200"), route] == 1
    assert counted[prefix + "request_seconds_count", route] == 1
    assert counted[prefix + "received_bytes_total", route] == line["bytes_in"]
    assert counted[prefix + "sent_bytes_total", route] == len(answer.content)
    assert counted[(prefix + "held_bytes",)] == 0
    assert counted[(prefix + "requests_under_way",)] == 1  # the one that asks


@pytest.mark.parametrize(
    ("error", "reason", "status"),
    [
        (TritonError("queue_full", "busy"), "queue_full", 429),
        (TritonError("invalid_argument", "send another"), "invalid_argument", 400),
        (TritonError("internal", "failed"), "internal", 424),
        (RuntimeError(SECRET), "fault", 500),
    ],
)
def test_a_refusal_is_counted_by_its_reason(volume_file, lines, error, reason, status):
    with running_gateway(FakeModels(error=error)) as gateway:
        assert send(gateway, volume_file).status_code == status
        counted = samples(gateway)
    found = counted["medimageparse_gateway_refusals_total", ("reason", reason), ("route", "/v1/volumes")]
    assert found == 1
    assert [line["reason"] for line in lines() if "reason" in line] == [reason]


def test_a_fault_of_the_gateway_says_its_place_in_the_log_and_nothing_to_the_caller(before, volume_file, lines):
    answer = send(before(FakeModels(error=RuntimeError(SECRET))), volume_file)
    assert answer.json()["message"] == FAULT
    ((place, request_id),) = [(line["error"], line["request_id"]) for line in lines() if "error" in line]
    assert request_id == answer.headers["x-request-id"]
    assert place.startswith("RuntimeError in line ")
    assert place.endswith(" of rest.py")  # of the frames of ours the innermost


def test_a_hang_up_is_counted(volume_file, lines):
    models = FakeModels(is_held=True)
    with running_gateway(models) as gateway:
        with gateway.connect() as connection:
            body = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n'
            body += b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n--b--\r\n'
            connection.sendall(
                b"POST /v1/volumes HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            assert models.began.wait(PATIENCE_S)
        assert models.cancelled.wait(PATIENCE_S)
    assert [line["reason"] for line in lines() if line.get("status") == 499] == ["hung_up"]


@pytest.mark.parametrize(
    "path", [f"/{SECRET}", f"/v1/volumes/{SECRET}", f"/v1/structures?model={SECRET}", f"/?{SECRET}"]
)
def test_nothing_that_a_caller_writes_is_in_log_metrics_or_error(volume_file, lines, path):
    key = Key("radiology", hashlib.sha256(SECRET.encode()).hexdigest())
    with running_gateway(FakeModels(error=RuntimeError(SECRET)), keys=(key,)) as gateway:
        known = {"authorization": f"Bearer {SECRET}", "x-request-id": f"Mr {SECRET}"}
        answers = [
            gateway.http.get(path),
            gateway.http.get(path, headers=known),
            gateway.http.request(SECRET.upper(), "/v1/volumes", headers=known),
            send(gateway, SECRET.encode(), SECRET, **known),
            send(gateway, volume_file, f"{SECRET} & {SECRET}", **known),
            gateway.http.post("/v1/volumes", content=SECRET.encode(), headers={**known, "content-type": SECRET}),
        ]
        metrics = gateway.http.get("/metrics").text
    told = [json.dumps(lines()), metrics, *(answer.text for answer in answers)]
    assert not any(SECRET in text or SECRET.upper() in text for text in told)
    assert {line["caller"] for line in lines() if "caller" in line} == {"", "radiology"}


def test_lines_of_libraries_are_json_too_and_have_no_traceback():
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        fault = (ValueError, error, error.__traceback__)
        record = logging.LogRecord("asyncio", logging.ERROR, "x.py", 1, "went %s", ("wrong",), fault)
    line = json.loads(Lines().format(record))
    assert (line["level"], line["message"]) == ("error", "asyncio: went wrong")
    assert line["error"].startswith("ValueError in line ")
    assert SECRET not in json.dumps(line)


@pytest.fixture
def _logging_as_before():
    root, levels = logging.getLogger(), (LOG.level, ACCESS.level)
    handlers, level, is_raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], logging.raiseExceptions = handlers, is_raising
    root.setLevel(level)
    LOG.setLevel(levels[0])
    ACCESS.setLevel(levels[1])


@pytest.mark.usefixtures("_logging_as_before")
@pytest.mark.parametrize(
    ("access_log", "access", "other"),
    [
        ("json", '{"time": "T", "level": "info", "route": "/"}', '{"time": "T", "level": "error", "message": "a b"}'),
        ("text", "time=T level=info route=/", 'time=T level=error message="a b"'),
        ("off", None, '{"time": "T", "level": "error", "message": "a b"}'),
    ],
)
def test_access_lines_are_json_text_or_nothing_and_the_others_stay(capsys, access_log, access, other):
    set_up(access_log)
    ACCESS.info({"route": "/"})
    LOG.error({"message": "a b"})
    told = re.sub(r"20[\d-]+T[\d:]+Z", "T", capsys.readouterr().err).splitlines()
    assert told == [line for line in (access, other) if line]
