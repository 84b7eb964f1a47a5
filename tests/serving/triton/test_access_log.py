"""The line that a public model writes of each request, and whose id stands in lines, errors and reports."""

import json
import re

import numpy as np
import pytest
from helpers import fake_triton
from helpers.one_call import BOTH_FORMS, MODEL, STEP, asking
from medimageparse_serving.launch.server_log import is_news
from medimageparse_serving.step_environment import ACCESS_LOG
from medimageparse_serving.triton.pipeline import Pipeline

SECRET, ID = "zebrafish-7391", "run-4.volume_2:a"
NAMELESS = (f"Mr {SECRET}", f"{SECRET}\n", f"{SECRET}/1970", SECRET * 9, "")


def tensor(name, value):
    return fake_triton.InferenceResponse([fake_triton.Tensor(name, np.array([value.encode()], np.object_))])


def stumble(inputs):
    raise KeyError(SECRET)


ENDS = {
    "answered": lambda inputs: tensor("report", json.dumps({"prompts": [{"text": SECRET}], "warnings": []})),
    "refused": lambda inputs: tensor("refusal", SECRET),
    "failed": lambda inputs: fake_triton.InferenceResponse(error=fake_triton.TritonError("no luck")),
    "stumbled": stumble,
}


@pytest.fixture(params=BOTH_FORMS)
def ask(request, tmp_path, monkeypatch):
    monkeypatch.setattr(fake_triton.Logger, "lines", [])
    monkeypatch.setenv(ACCESS_LOG, "json")
    return asking(request.param, "report", ENDS, tmp_path, monkeypatch)


def line_of(capfd):
    """The one line that was written, as JSON."""
    [line] = filter(None, capfd.readouterr().err.split("\n"))
    assert is_news(line, without_gpu=True)
    return json.loads(line)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [("answered", "answered"), ("refused", "refused"), ("failed", "failed"), ("stumbled", "failed")],
)
def test_each_request_is_a_line_without_content(ask, capfd, end, outcome):
    ask(end, request_id=ID)
    line = line_of(capfd)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line.pop("time"))
    assert line.pop("milliseconds") >= 0
    expected = {"level": "info", "request_id": ID, "model": MODEL, "outcome": outcome, "slices": 5, "prompts": 3}
    assert line == expected | ({"refused_by": STEP} if end == "refused" else {})


def test_a_request_that_was_given_up_is_a_line_too(ask, capfd):
    ask(cancelled=True, request_id=ID)
    assert line_of(capfd)["outcome"] == "cancelled"


def test_what_the_public_model_refuses_itself_is_refused_by_it(ask, capfd, monkeypatch):
    monkeypatch.setattr(Pipeline, "required", ("another",))
    ask()
    line = line_of(capfd)
    assert line["refused_by"] == MODEL
    assert not line.keys() & {"slices", "prompts"}


@pytest.mark.parametrize("word", NAMELESS)
@pytest.mark.parametrize("end", ENDS)
def test_an_id_of_another_form_stands_nowhere(ask, capfd, word, end):
    response = ask(end, request_id=word)
    line = line_of(capfd)
    assert line["request_id"] == ""
    assert SECRET not in json.dumps(line) + "".join(fake_triton.Logger.lines)
    if end == "answered":
        assert "request_id" not in json.loads(response.arrays()["report"].item())


def test_the_report_has_the_id(ask):
    assert json.loads(ask(request_id=ID).arrays()["report"].item())["request_id"] == ID


@pytest.mark.parametrize("end", ["failed", "stumbled"])
def test_the_line_of_an_error_has_the_id(ask, end):
    ask(end, request_id=ID)
    ask(end)
    named, nameless = fake_triton.Logger.lines
    assert named.endswith(f" (request {ID})")
    assert named == f"{nameless} (request {ID})"


def test_it_is_text_on_demand_or_nothing(ask, capfd, monkeypatch):
    monkeypatch.setenv(ACCESS_LOG, "text")
    ask(request_id=ID)
    written = capfd.readouterr().err
    words = f"level=info request_id={ID} model={MODEL} outcome=answered"
    assert re.fullmatch(rf"\ntime=\S+Z {words} milliseconds=[\d.]+ slices=5 prompts=3\n", written)
    monkeypatch.setenv(ACCESS_LOG, "off")
    ask(request_id=ID)
    monkeypatch.delenv(ACCESS_LOG)  # a server without the launcher
    ask(request_id=ID)
    assert capfd.readouterr().err == ""


def test_canaries_have_no_line(ask, capfd):
    ask(parameters='{"inner_key": "a word"}')
    assert capfd.readouterr().err == ""
