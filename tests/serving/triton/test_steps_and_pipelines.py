"""What steps and pipelines share: refusals, faults without words, cancelled requests, times."""

import asyncio
import json
from dataclasses import dataclass

import numpy as np
import pytest
from helpers import fake_triton

fake_triton.install()

from medimageparse_serving.refused import Refused  # noqa: E402
from medimageparse_serving.step_environment import STEP_PATIENCE  # noqa: E402
from medimageparse_serving.triton import inner_key  # noqa: E402
from medimageparse_serving.triton.pipeline import Pipeline  # noqa: E402
from medimageparse_serving.triton.step import Step  # noqa: E402
from medimageparse_serving.triton.stream import Stream  # noqa: E402
from medimageparse_serving.triton.tensors import Inputs, as_array  # noqa: E402

SECRET = "zebrafish-7391"


def text(words):
    return np.array([words.encode() if isinstance(words, str) else words], np.object_)


@dataclass(frozen=True)
class Of:
    name: str


@dataclass(frozen=True)
class Report:
    of: Of
    numbers: list[int]


class Doubling(Step):
    def configure(self, parameters):
        self.factor = int(parameters["factor"])

    def answer(self, inputs):
        if inputs.item("mistake"):
            raise Refused("number is odd; send an even one")
        if inputs.item("fault"):
            raise {"value": ValueError, "memory": MemoryError}[inputs.item("fault").decode()](SECRET)
        return {"number": self.factor * inputs.array("number"), "words": ["a", b"b"], "report": Report(Of(SECRET), [1])}


def arguments(folder="", **parameters):
    config = {"parameters": {name: {"string_value": value} for name, value in parameters.items()}}
    return {"model_config": json.dumps(config), "model_repository": str(folder), "model_version": "1"}


@pytest.fixture
def step():
    step = Doubling()
    step.initialize(arguments(factor="2"))
    return step


def test_a_step_answers_each_request_with_tensors(step):
    requests = [fake_triton.Request(number=np.array([n])) for n in (1, 5)]
    first, second = (response.arrays() for response in step.execute(requests))
    assert (first["number"].item(), second["number"].item()) == (2, 10)
    assert first["words"].tolist() == [b"a", b"b"]
    assert json.loads(first["report"].item()) == {"of": {"name": SECRET}, "numbers": [1]}


def test_the_callers_mistake_is_an_output(step):
    [response] = step.execute([fake_triton.Request(number=np.array([1]), mistake=text("yes"))])
    assert response.arrays()["refusal"].tolist() == [b"number is odd; send an even one"]
    assert not response.has_error()


@pytest.mark.parametrize(
    ("fault", "kind", "code"), [("value", "ValueError", "INVALID_ARG"), ("memory", "MemoryError", "INTERNAL")]
)
def test_a_fault_says_where_it_is_and_none_of_its_words(step, fault, kind, code):
    request = fake_triton.Request(number=np.array([1]), fault=text(fault))
    bad, good = step.execute([request, fake_triton.Request(number=np.array([2]))])
    assert bad.error().message().startswith(f"these tensors gave no result: {kind} in line ")
    assert (bad.error().code, SECRET in bad.error().message(), "/" in bad.error().message()) == (code, False, False)
    assert good.arrays()["number"].item() == 4


def test_what_one_step_packs_another_unpacks():
    report = Report(Of("ä"), [1, 2])
    inputs = Inputs(fake_triton.Request(report=as_array(report)))
    assert inputs.record("report", Report) == report


def test_a_choice_is_the_first_unless_the_caller_names_another():
    inputs = Inputs(fake_triton.Request(intensity=text("none"), orientation=text("")))
    assert inputs.choice("intensity", ("auto", "none")) == "none"
    assert inputs.choice("orientation", ("LAS", "stored")) == "LAS"
    assert inputs.choice("slice_axis", ("auto", "0")) == "auto"


@pytest.mark.parametrize("sent", ["NONE", "none ", b"\xff", SECRET, "none" * 10**6], ids=lambda sent: str(sent)[:9])
def test_an_unknown_choice_is_refused_with_the_known_ones(sent):
    inputs = Inputs(fake_triton.Request(intensity=text(sent)))
    with pytest.raises(Refused, match="^intensity is unknown; send one of auto, none, or leave it out$"):
        inputs.choice("intensity", ("auto", "none"))


def test_what_becomes_a_tensor():
    assert as_array("ä").tolist() == ["ä".encode()]
    assert as_array([]).shape == (0,)
    array = np.zeros((2, 3))
    assert as_array(array) is array


class TwoCalls(Pipeline):
    async def answer(self, inputs, calls, wanted):
        first = await calls.call("first_model", ["number"], inputs.tensors.values())
        later = [calls.start("second_model", ["report"], []) for _ in range(2)]
        reports = [await finish() for finish in later]
        return {"number": first["number"], "report": reports[-1]["report"], "unasked": text("x")}


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    monkeypatch.setattr(fake_triton.InferenceRequest, "made", [])
    monkeypatch.setattr(fake_triton.Logger, "lines", [])
    report = text(json.dumps({"prompts": [], "warnings": []}))
    answers = {
        "one": lambda inputs: fake_triton.InferenceResponse([fake_triton.Tensor("number", inputs["image"] + 1)]),
        "two": lambda inputs: fake_triton.InferenceResponse([fake_triton.Tensor("report", report)]),
    }
    monkeypatch.setattr(fake_triton.InferenceRequest, "answers", answers)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "networks.json").write_text('{"image_size": 64}')
    return initialized(TwoCalls(), tmp_path)


def initialized(pipeline, folder, max_seconds="600"):
    pipeline.initialize(arguments(folder, first_model="one", second_model="two", max_seconds=max_seconds))
    return pipeline


def ask(pipeline, **request):
    [response] = asyncio.run(pipeline.execute([fake_triton.Request(**request)]))
    return response


def test_a_pipeline_answers_what_is_wanted_with_the_milliseconds_of_each_model(pipeline):
    answer = ask(pipeline, wanted=["number", "report"], image=np.array([4])).arrays()
    assert set(answer) == {"number", "report"}
    assert answer["number"].item() == 5
    report = json.loads(answer["report"].item())
    assert list(report["milliseconds"]) == ["one", "two", "total"]
    took = report["milliseconds"]
    assert took["one"] + took["two"] <= took["total"] + 0.2  # each is rounded
    assert "report" not in ask(pipeline, wanted=["number"], image=np.array([4])).arrays()


def test_a_refusal_of_a_step_is_the_callers_mistake(pipeline):
    refusal = fake_triton.InferenceResponse([fake_triton.Tensor("refusal", text("send something else"))])
    fake_triton.InferenceRequest.answers["one"] = lambda inputs: refusal
    error = ask(pipeline, wanted=["number"], image=np.array([4])).error()
    assert (error.message(), error.code) == ("send something else", "INVALID_ARG")
    assert [request.model for request in fake_triton.InferenceRequest.made] == ["one"]


def test_a_step_that_fails_is_named_and_its_first_line_is_logged(pipeline):
    failed = fake_triton.InferenceResponse(error=fake_triton.TritonError("stub died\nTraceback"))
    fake_triton.InferenceRequest.answers["one"] = lambda inputs: failed
    error = ask(pipeline, wanted=["number"], image=np.array([4])).error()
    assert (error.message(), error.code) == ("one failed; the server's log says why", "INTERNAL")
    assert fake_triton.Logger.lines == ["one: stub died"]


@pytest.mark.parametrize(
    "words", ["Stub process is not healthy.", "in ensemble 'segment_window_3d', Stub process 'x_0' is not healthy."]
)
def test_a_step_that_was_killed_is_worth_another_try(pipeline, words):
    failed = fake_triton.InferenceResponse(error=fake_triton.TritonError(words))
    fake_triton.InferenceRequest.answers["one"] = lambda inputs: failed
    error = ask(pipeline, wanted=["number"], image=np.array([4])).error()
    assert (error.message(), error.code) == ("one died; try again in a few seconds", "UNAVAILABLE")
    assert len(fake_triton.InferenceRequest.made) == 1


AWAY = (
    "Stub process 'one_0_0' is not healthy.",
    "Model one - Error when running inference: Failed for execute the inference request. Model 'one' is not ready.",
    "in ensemble 'one', Request for unknown model: 'two' has no available versions",
)


def test_a_request_waits_for_a_step_that_is_loaded_again(pipeline, monkeypatch):
    monkeypatch.setenv(STEP_PATIENCE, "60")
    answers, good = fake_triton.InferenceRequest.answers, fake_triton.InferenceRequest.answers["one"]
    left = [*AWAY]

    def ill(inputs):
        assert inputs["image"].item() == 4  # each time
        return fake_triton.InferenceResponse(error=fake_triton.TritonError(left.pop())) if left else good(inputs)

    answers["one"] = ill
    assert ask(pipeline, wanted=["number"], image=np.array([4])).arrays()["number"].item() == 5
    assert [request.model for request in fake_triton.InferenceRequest.made] == ["one"] * 4 + ["two"] * 2
    assert fake_triton.Logger.lines == ["one died or is loaded again; a request waits for it"]


def test_a_request_waits_no_longer_than_its_time_and_not_for_other_faults(pipeline, monkeypatch):
    monkeypatch.setenv(STEP_PATIENCE, "0.3")
    for words, sentence in ((AWAY[0], "one died; try again"), ("Stub process failed", "one failed; the server's log")):
        failed = fake_triton.InferenceResponse(error=fake_triton.TritonError(words))
        fake_triton.InferenceRequest.answers["one"] = lambda inputs, failed=failed: failed
        assert sentence in ask(pipeline, wanted=["number"], image=np.array([4])).error().message()
    n_away = len(fake_triton.InferenceRequest.made) - 1
    assert n_away > 1
    monkeypatch.setenv(STEP_PATIENCE, "60")
    fake_triton.InferenceRequest.answers["one"] = lambda inputs: fake_triton.InferenceResponse(
        error=fake_triton.TritonError(AWAY[0])
    )
    error = ask(pipeline, wanted=["number"], image=np.array([4]), timeout_us=200_000).error()
    assert error.code == "CANCELLED"


def test_a_fault_of_the_pipeline_is_logged_without_words(pipeline):
    def fail(inputs):
        raise KeyError(SECRET)

    fake_triton.InferenceRequest.answers["one"] = fail
    error = ask(pipeline, wanted=["number"], image=np.array([4])).error()
    assert (error.message(), error.code) == ("the request failed; the server's log says why", "INTERNAL")
    [line] = fake_triton.Logger.lines
    assert line.startswith("KeyError in line ")
    assert SECRET not in line


@pytest.mark.parametrize("given_up", [{"cancelled": True}, {"timeout_us": 0.001}])
def test_a_caller_who_gave_up_starts_no_further_call(pipeline, given_up):
    error = ask(pipeline, wanted=["number"], image=np.array([4]), **given_up).error()
    assert error.code == "CANCELLED"
    assert fake_triton.InferenceRequest.made == []


def test_a_request_that_runs_for_longer_than_the_server_allows_ends(pipeline, tmp_path):
    """Whatever the caller's own time-out is; the last call before the limit is finished."""
    for timeout_us in (0, 2**62 // 1000):
        error = ask(initialized(TwoCalls(), tmp_path, "0"), image=np.array([4]), timeout_us=timeout_us).error()
        assert error.message().startswith("the request took longer than this server gives to one, 0 s; send ")
        assert error.code == "CANCELLED"
    error = ask(initialized(TwoCalls(), tmp_path, "0"), image=np.array([4]), timeout_us=0.001).error()
    assert "its time-out is over" in error.message()  # the shorter one
    assert fake_triton.InferenceRequest.made == []


def test_a_missing_input_is_named(pipeline):
    error = ask(pipeline, wanted=["number"], text=text("liver")).error()
    assert (error.message(), error.code) == ("image is missing; every request needs it", "INVALID_ARG")


class Counting(Stream, TwoCalls):
    async def answer(self, inputs, calls, wanted):
        for number in range(3 if calls.tell else 0):
            calls.tell(json.dumps({"done": number}))
        return await super().answer(inputs, calls, wanted)


def streamed(pipeline, **request):
    request = fake_triton.Request(**request)
    assert pipeline.execute([request]) is None  # nothing is answered but through the sender
    return request.sent


def test_a_stream_tells_of_progress_and_answers_at_its_end(pipeline, tmp_path):
    stream = initialized(Counting(), tmp_path)
    *told, (last, flags) = streamed(stream, wanted=["number", "progress"], image=np.array([4]))
    assert [json.loads(response.arrays()["progress"].item())["done"] for response, _ in told] == [0, 1, 2]
    assert {(tuple(response.arrays()), flags) for response, flags in told} == {(("progress",), 0)}
    assert (list(last.arrays()), last.arrays()["number"].item(), flags) == (["number"], 5, 1)


def test_who_wants_no_progress_gets_none(pipeline, tmp_path):
    [(answer, _)] = streamed(initialized(Counting(), tmp_path), wanted=["number"], image=np.array([4]))
    assert list(answer.arrays()) == ["number"]


@pytest.mark.parametrize("request_", [{"text": text("liver")}, {"image": np.array([4]), "cancelled": True}])
def test_a_stream_ends_with_the_error_that_the_model_answers(pipeline, tmp_path, request_):
    expected = ask(pipeline, wanted=["number"], **request_).error()
    *_, (last, flags) = streamed(initialized(Counting(), tmp_path), wanted=["number", "progress"], **request_)
    code = {"INVALID_ARG": "INVALID_ARGUMENT"}.get(expected.code, expected.code)
    assert (last.error().message(), last.error().code, flags) == (f"{code}: {expected.message()}", expected.code, 1)


def test_a_stream_reads_what_lies_beside_the_model_that_it_streams(pipeline, tmp_path):
    class OfAnother(Counting):
        networks_of = tmp_path.name

    assert initialized(OfAnother(), tmp_path.with_name("twin")).networks["image_size"] == 64


def test_pipelines_show_the_word_and_steps_want_it(pipeline, monkeypatch):
    monkeypatch.setenv("MEDIMAGEPARSE_INNER_KEY", "a word")
    asyncio.run(pipeline.respond(fake_triton.Request(["number"], image=text("x"))))
    assert fake_triton.InferenceRequest.made[0].parameters == {"inner_key": "a word"}
    request = fake_triton.Request()
    for sent, ours in (
        ("", False),
        ("{}", False),
        ('{"inner_key": "another"}', False),
        ('{"inner_key": 3}', False),
        ('{"inner_key": "\u00e4"}', False),
        ('{"inner_key": "\\ud800"}', False),  # half a character, which has no UTF-8
        ('{"inner_key": "a word"}', True),
    ):
        request.sent_parameters = sent
        assert inner_key.is_ours(request) is ours
    monkeypatch.delenv("MEDIMAGEPARSE_INNER_KEY")
    assert inner_key.is_ours(request)
    assert inner_key.parameters() == {}


def test_while_it_warms_up_a_public_model_answers_the_launcher_alone(pipeline, monkeypatch, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    monkeypatch.setenv("MEDIMAGEPARSE_INNER_KEY", "a word")
    monkeypatch.setenv("MEDIMAGEPARSE_GATE", str(gate))
    request = fake_triton.Request(["number"], image=np.zeros(1))
    refused = asyncio.run(pipeline.respond(request))
    assert refused.error().message() == "the server is warming up; try again in a few seconds"
    assert refused.error().code == "UNAVAILABLE"
    request.sent_parameters = '{"inner_key": "a word"}'
    assert not asyncio.run(pipeline.respond(request)).has_error()
    gate.unlink()
    request.sent_parameters = ""
    assert not asyncio.run(pipeline.respond(request)).has_error()
