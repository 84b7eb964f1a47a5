"""The rows of a request before a Triton that stands in: how many at once, in which order, and when it ends."""

import asyncio

import numpy as np
import pytest
from medimageparse_contract.models import MODEL_2D
from medimageparse_gateway import azure_rows
from medimageparse_gateway.azure_forms import Row
from medimageparse_gateway.azure_models import MODELS
from medimageparse_gateway.azure_rows import score_rows
from medimageparse_gateway.errors import HttpError, TritonError

MODEL = MODELS[MODEL_2D]
RUN_FAILED, ERROR_STATUS = "x-ms-run-function-failed", "ms-azureml-model-error-statuscode"


def rows_of(n_rows):
    return [Row(b"%d" % number, "liver") for number in range(n_rows)]


class Triton:
    """Answers with the image; `outcomes` of a row are raised first, one a call."""

    def __init__(self, is_there=True, **outcomes):
        self.is_there, self.outcomes = is_there, {int(name[3:]): list(errors) for name, errors in outcomes.items()}
        self.under_way = self.most_at_once = self.n_cancelled = 0
        self.calls, self.timeouts_s, self.ids = [], [], set()

    async def infer(self, model, inputs, outputs, *, timeout_s, request_id):
        assert (model, outputs) == (MODEL_2D, ("image_features", "text_features"))
        number = int(inputs["image"])
        self.calls.append(number)
        self.timeouts_s.append(timeout_s)
        self.ids.add(request_id)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            for _ in range(3 - number % 3):  # later rows may be done earlier
                await asyncio.sleep(0)
            outcome = self.outcomes.get(number, [])
            if outcome == ["wait"]:
                await asyncio.Event().wait()
            if outcome:
                raise outcome.pop(0)
        except asyncio.CancelledError:
            self.n_cancelled += 1
            raise
        finally:
            self.under_way -= 1
        features = np.array([inputs["image"]], np.object_)
        return {"image_features": features, "text_features": np.array([b"liver"], np.object_)}

    async def has(self, model):
        return self.is_there


def score(triton, n_rows, timeout_s=600.0):
    return asyncio.run(score_rows(triton, MODEL, rows_of(n_rows), {}, timeout_s, "run-4.7"))


def error_of(triton, n_rows, timeout_s=600.0):
    with pytest.raises(HttpError) as failed:
        score(triton, n_rows, timeout_s)
    return failed.value


BUSY = TritonError("queue_full", "the queue is full")


@pytest.mark.parametrize("n_rows", [1, 2, 7, 256])
def test_rows_are_answered_in_order_and_at_most_two_are_under_way(n_rows):
    triton = Triton()
    answers = score(triton, n_rows)
    assert answers == [b'{"image_features":"%d","text_features":["liver"]}' % number for number in range(n_rows)]
    assert triton.most_at_once == min(2, n_rows)
    assert sorted(triton.calls) == list(range(n_rows))
    assert all(0 < timeout_s <= 600 for timeout_s in triton.timeouts_s)
    assert triton.ids == {"run-4.7"}


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("invalid_argument", 400),
        ("queue_full", 429),
        ("timeout", 408),
        ("cancelled", 408),
        ("unavailable", 503),
        ("internal", 424),
    ],
)
def test_an_error_of_a_row_has_azures_status_and_names_the_row(kind, status):
    error = error_of(Triton(row0=[TritonError(kind, "the sentence")]), 1)
    assert (error.status, error.sentence) == (status, "row 0: the sentence")
    assert error.headers[RUN_FAILED] == "True"
    assert (error.headers.get(ERROR_STATUS) == "500") == (status == 424)


def test_a_step_that_failed_while_the_model_goes_is_an_absence():
    error = error_of(Triton(is_there=False, row0=[TritonError("internal", "a step failed")]), 1)
    assert error.status == 503
    assert ERROR_STATUS not in error.headers


def test_one_bad_row_ends_the_request_and_the_work_of_the_others():
    triton = Triton(row3=["wait"], row4=[TritonError("invalid_argument", "image is not a PNG or JPEG file")])
    error = error_of(triton, 256)
    assert (error.status, error.sentence) == (400, "row 4: image is not a PNG or JPEG file")
    assert triton.n_cancelled == 1
    assert len(triton.calls) == 5


def test_a_full_queue_refuses_the_first_row_at_once():
    triton = Triton(row0=[BUSY])
    assert error_of(triton, 7).status == 429
    assert triton.calls.count(0) == 1


def test_a_full_queue_makes_later_rows_wait(monkeypatch):
    monkeypatch.setattr(azure_rows, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(azure_rows, "LONGEST_WAIT_S", 0.002)
    triton = Triton(row1=[BUSY] * 5, row6=[BUSY])
    assert len(score(triton, 7)) == 7
    assert (triton.calls.count(1), triton.calls.count(6)) == (6, 2)


def test_the_wait_for_a_place_ends_with_the_time_limit(monkeypatch):
    monkeypatch.setattr(azure_rows, "FIRST_WAIT_S", 0.001)
    assert error_of(Triton(row1=[BUSY] * 10**6), 2, timeout_s=0.05).status == 408


def test_the_time_limit_ends_the_work():
    triton = Triton(row0=["wait"], row1=["wait"])
    error = error_of(triton, 7, timeout_s=0.05)
    assert error.status == 408
    assert error.headers[RUN_FAILED] == "True"
    assert triton.n_cancelled == 2


def test_cancelling_the_request_cancels_its_rows():
    async def cancelled():
        triton = Triton(row0=["wait"], row1=["wait"])
        task = asyncio.create_task(score_rows(triton, MODEL, rows_of(3), {}, 600, ""))
        while triton.under_way < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return triton

    assert asyncio.run(cancelled()).n_cancelled == 2


def test_answers_beyond_the_limit_end_the_request(monkeypatch):
    monkeypatch.setattr(azure_rows, "MAX_ANSWER_BYTES", 300)
    error = error_of(Triton(), 256)
    assert error.status == 400
    assert "send fewer rows" in error.sentence
