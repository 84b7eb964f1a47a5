"""Server-sent events of a 3D request."""

import base64
import json
from contextlib import contextmanager

import numpy as np
import pytest
from helpers.gateway import PATIENCE_S, FakeModels
from medimageparse_gateway import progress
from medimageparse_gateway.errors import TritonError

ACCEPT = {"accept": "text/event-stream"}


def events_of(text):
    """(name, data) of each event."""
    for block in text.strip().split("\n\n"):
        lines = [line.partition(": ") for line in block.split("\n")]
        found = {name: value for name, _, value in lines if name}
        if found:
            yield found["event"], json.loads(found["data"])


@contextmanager
def streaming(gateway, volume_file):
    """The lines of the answer as they come."""
    form = {"files": {"image": volume_file}, "data": {"prompt": ["liver"]}}
    with gateway.http.stream("POST", "/v1/volumes", headers=ACCEPT, **form) as answer:
        yield answer.iter_lines()


def ask(gateway, volume_file):
    form = {"files": {"image": volume_file}, "data": {"prompt": ["liver"]}}
    return gateway.http.post("/v1/volumes", headers=ACCEPT, **form)


def test_slices_are_counted_and_the_result_comes_last(before, volume_file):
    gateway = before(FakeModels(slices=3))
    answer = ask(gateway, volume_file)
    labels = gateway.http.post("/v1/volumes", files={"image": volume_file}, data={"prompt": ["liver"]}).content
    assert answer.headers["content-type"].startswith("text/event-stream")
    *told, (name, result) = events_of(answer.text)
    assert told == [("progress", {"slices_done": k, "slices": 3, "prompts_found": []}) for k in (1, 2, 3)]
    assert name == "result"
    assert result["report"]["prompts"][0]["text"] == "liver"
    assert len(base64.b64decode(result["labels"])) == len(labels)


def test_a_server_without_the_decoupled_model_gives_the_result_alone(gateway, volume_file):
    ((name, result),) = events_of(ask(gateway, volume_file).text)
    assert name == "result"
    assert result["labels"]


def test_a_picture_has_its_result_as_an_event(gateway, picture_file):
    form = {"files": {"image": picture_file}, "data": {"prompt": ["left lung"]}}
    ((name, result),) = events_of(gateway.http.post("/v1/images", headers=ACCEPT, **form).text)
    assert name == "result"
    assert result["report"]["prompts"][0]["text"] == "left lung"
    assert base64.b64decode(result["labels"]) == gateway.http.post("/v1/images", **form).content


def test_what_a_label_map_cannot_hold_is_an_error_event(gateway, picture_file):
    form = {"files": {"image": picture_file}, "data": {"prompt": [f"p{k}" for k in range(256)]}}
    ((name, error),) = events_of(gateway.http.post("/v1/images", headers=ACCEPT, **form).text)
    assert (name, error["code"]) == ("error", 400)
    assert "255 labels" in error["message"]


@pytest.mark.parametrize("slices", [None, 2])
def test_a_refusal_is_the_last_event(before, volume_file, slices):
    error = TritonError("invalid_argument", "send another")
    *_, last = events_of(ask(before(FakeModels(error=error, slices=slices)), volume_file).text)
    assert last == ("error", {"code": 400, "message": "send another"})


def test_a_silent_stream_is_kept_alive_by_comments(before, volume_file, monkeypatch):
    monkeypatch.setattr(progress, "KEEP_ALIVE_S", 0.01)
    models = FakeModels(is_held=True)
    with streaming(before(models), volume_file) as lines:
        assert next(lines) == ": still at work"
        models.release()
        assert "event: result" in list(lines)


@pytest.mark.parametrize("slices", [None, 2])
def test_a_caller_who_leaves_the_stream_ends_the_work(before, volume_file, slices, monkeypatch):
    monkeypatch.setattr(progress, "KEEP_ALIVE_S", 0.01)
    models = FakeModels(is_held=True, slices=slices)
    with streaming(before(models), volume_file) as lines:
        next(lines)
        assert models.began.wait(PATIENCE_S)
    assert models.cancelled.wait(PATIENCE_S)


class EndlessModels(FakeModels):
    async def stream(self, model, inputs, outputs, **options):
        try:
            while True:
                yield {"progress": np.array([b"{}"], np.object_)}
        finally:
            self.cancelled.set()


def test_a_caller_who_leaves_ends_a_stream_that_is_never_silent(before, volume_file):
    models = EndlessModels(slices=1)
    with streaming(before(models), volume_file) as lines:
        next(lines)
    assert models.cancelled.wait(PATIENCE_S)


class OddModels(FakeModels):
    """Gives these responses, each by name and content."""

    def __init__(self, *responses):
        super().__init__(slices=1)
        self.responses = responses

    async def stream(self, model, inputs, outputs, **options):
        for response in self.responses:
            yield {name: np.array([content], np.object_) for name, content in response.items()}


@pytest.mark.parametrize(
    "responses",
    [
        (),
        ({"progress": b"{}"},),
        ({"progress": b"not JSON"},),
        ({"report": b"{}"},),
        ({"nifti_file": b"{}", "report": b"{}"},),
        ({"nifti_file": b"[]", "report": b"{}"},),
        ({"nifti_file": b'{"data": ""}', "report": b"not JSON"},),
        ({"elsewhere": b""},),
    ],
)
def test_a_stream_that_no_model_gives_ends_with_an_error(before, volume_file, responses):
    *_, (name, data) = events_of(ask(before(OddModels(*responses)), volume_file).text)
    assert (name, data["code"]) == ("error", 424)
