"""What the public models count: how each request ended, by whom it was refused, how much work it was."""

import numpy as np
import pytest
from helpers import fake_triton
from helpers.one_call import BOTH_FORMS, MODEL, STEP, asking
from medimageparse_serving.triton import counts
from medimageparse_serving.triton.pipeline import Pipeline

SECRET = "zebrafish-7391"


def tensor(name, value):
    return fake_triton.InferenceResponse([fake_triton.Tensor(name, value)])


def stumble(inputs):
    raise KeyError(SECRET)


ENDS = {  # what the step answers, and how the request ends
    "answered": lambda inputs: tensor("number", np.zeros(1)),
    "refused": lambda inputs: tensor("refusal", np.array([SECRET.encode()], np.object_)),
    "failed": lambda inputs: fake_triton.InferenceResponse(error=fake_triton.TritonError(SECRET)),
    "stumbled": stumble,
}
COUNTED = {"stumbled": "failed"}


@pytest.fixture(params=BOTH_FORMS)
def ask(request, tmp_path, monkeypatch):
    monkeypatch.setattr(fake_triton.MetricFamily, "values", {})
    return asking(request.param, "number", ENDS, tmp_path, monkeypatch)


def counted(**labels):
    """Family -> sum of the counters with these labels, those of 0 left out."""
    sums = {}
    for (name, *pairs), value in fake_triton.MetricFamily.values.items():
        if labels.items() <= dict(pairs).items() and value:
            sums[name.removeprefix("medimageparse_")] = sums.get(name.removeprefix("medimageparse_"), 0) + value
    return sums


def test_every_counter_is_there_from_the_start(ask):
    values = fake_triton.MetricFamily.values
    assert {name for name, *_ in values} == set(counts.FAMILIES)
    assert set(values.values()) == {0}


@pytest.mark.parametrize("end", ENDS)
def test_a_request_counts_once_by_how_it_ended(ask, end):
    ask(end)
    outcome = COUNTED.get(end, end)
    assert counted()["requests_total"] == counted(outcome=outcome)["requests_total"] == 1
    assert counted().get("refusals_total", 0) == counted(by=STEP).get("refusals_total", 0) == (end == "refused")
    assert counted().get("slices_total", 0) == (5 if end == "answered" else 0)
    assert counted().get("prompts_total", 0) == (3 if end == "answered" else 0)
    assert counted().get("answer_seconds_count", 0) == (end == "answered")


def test_what_the_public_model_refuses_itself_is_its_own_refusal(ask, monkeypatch):
    monkeypatch.setattr(Pipeline, "required", ("another",))
    ask()
    assert counted(by=MODEL)["refusals_total"] == counted(outcome="refused")["requests_total"] == 1


@pytest.mark.parametrize("given_up", [{"cancelled": True}, {"timeout_us": 0.001}])
def test_a_caller_who_gives_up_is_no_failure(ask, given_up):
    ask(**given_up)
    assert counted() == {"requests_total": 1}
    assert counted(outcome="cancelled") == {"requests_total": 1}


@pytest.mark.parametrize("end", ENDS)
def test_canaries_are_counted_apart(ask, end):
    ask(end, '{"inner_key": "a word"}')
    assert counted() == {"canaries_total": 1}
    assert counted(outcome=COUNTED.get(end, end)) == {"canaries_total": 1}


def test_buckets_are_those_of_a_histogram(ask):
    """Each holds what took so long or less; the last holds all."""
    for took_s in (0.2, 5, 1000):
        counter = counts.Counts(MODEL, [STEP])
        work = counts.Work()
        work.outcome, work.began_s = counts.ANSWERED, work.began_s - took_s
        counter.add(work)
    found = {le: counted(le=le).get("answer_seconds_bucket", 0) for le in counts.SECONDS}
    assert found == {"0.1": 0, "0.3": 1, "1": 1, "3": 1, "10": 2, "30": 2, "100": 2, "300": 2, "+Inf": 3}
    assert counted()["answer_seconds_count"] == 3
    assert 1005 < counted()["answer_seconds_sum"] < 1100


def test_no_label_holds_what_a_caller_sent(ask):
    for end in ENDS:
        ask(end, image=np.array([SECRET], np.object_))
    assert SECRET not in repr(fake_triton.MetricFamily.values)
