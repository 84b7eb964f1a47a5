"""The stream of medimageparse_3d: the same answer and the same refusals, and progress on the way."""

import json
from threading import Thread

import numpy as np
import pytest
from helpers.inference import OUTPUTS, inferring, streaming
from medimageparse_client import Client, InvalidRequest, MedImageParseError
from medimageparse_contract.models import MODEL_3D, STREAMS
from tritonclient.utils import InferenceServerException

STREAM = STREAMS[MODEL_3D]
PROMPTS = ["liver", "CT imaging of the spleen within the abdomen", "stomach", "aorta", "spine"]  # those of `answer`


def streamed(server, inputs, outputs=("progress", *OUTPUTS), **options):
    with streaming(server, STREAM, inputs, outputs, **options) as responses:
        return list(responses)


def without_times(report):
    return {name: value for name, value in json.loads(report.item()).items() if name != "milliseconds"}


def test_the_answer_is_that_of_the_model_to_the_bit(server, request_of, answer):
    *progress, last = streamed(server, request_of())
    assert {tuple(response) for response in progress} == {("progress",)}
    assert last.keys() == answer.keys()
    for name in set(OUTPUTS) - {"report"}:
        assert np.array_equal(last[name], answer[name])
        assert last[name].dtype == answer[name].dtype
    assert without_times(last["report"]) == without_times(answer["report"])
    assert json.loads(last["report"].item())["milliseconds"].keys() == (
        json.loads(answer["report"].item())["milliseconds"].keys()
    )


def test_progress_counts_up_to_all_slices_and_names_the_prompts_found(server, request_of, volume):
    prompts = ("liver", "spleen", "left lung", "stomach")
    *told, last = streamed(server, request_of(prompts=prompts))
    told = [json.loads(response["progress"].item()) for response in told]
    assert [progress["slices_done"] for progress in told] == [0, 4, 5]
    assert {progress["slices"] for progress in told} == {5} == {volume.shape[2]}
    present = [prompt["text"] for prompt in json.loads(last["report"].item())["prompts"] if prompt["present"]]
    assert 0 < len(present) < len(prompts)  # or nothing would be shown
    assert told[0]["prompts_found"] == []
    assert set(told[1]["prompts_found"]) <= set(told[2]["prompts_found"])
    assert told[2]["prompts_found"] == present


@pytest.mark.parametrize("outputs", [["report"], ["scores"], ["label_map", "scores"]])
def test_who_names_no_progress_gets_the_outputs_alone(server, request_of, answer, outputs):
    [response] = streamed(server, request_of(), outputs)
    assert set(response) == set(outputs)
    assert all(np.array_equal(response[name], answer[name]) for name in set(outputs) - {"report"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": b"no volume"},
        {"text": b" & "},
        {"text": b"\xff"},
        {"output": b"mask"},
        {"intensity": b"ct"},
        {"slice_axis": b"3"},
    ],
    ids=str,
)
def test_a_refusal_has_the_sentence_and_the_code_of_the_model(server, request_of, infer, wrong):
    sent = request_of() | wrong
    with pytest.raises(InferenceServerException) as expected:
        infer(sent)
    with pytest.raises(InferenceServerException) as found:
        streamed(server, sent)
    assert expected.value.status() == "StatusCode.INVALID_ARGUMENT"
    words = found.value.message().replace(STREAM, MODEL_3D)
    assert words == f"INVALID_ARGUMENT: {expected.value.message()}"


def test_what_triton_itself_refuses_has_the_same_sentence(server, request_of, infer):
    """tritonserver 2.51 gives it no code in a stream."""
    sent = request_of() | {"misspelt": b"auto"}
    with pytest.raises(InferenceServerException) as expected:
        infer(sent)
    with pytest.raises(InferenceServerException) as found:
        streamed(server, sent)
    assert found.value.message().replace(STREAM, MODEL_3D) == expected.value.message()


def test_the_client_watches_and_gets_the_same(client, volume, answer):
    told = []
    result = client.segment(volume, PROMPTS, progress=lambda *words: told.append(words))
    assert np.array_equal(result.label_map, answer["label_map"])
    assert np.array_equal(result.scores, answer["scores"])
    assert [(done, total) for done, total, _ in told] == [(0, 5), (4, 5), (5, 5)]
    assert told[-1][2] == tuple(prompt for prompt in PROMPTS if result.describe(prompt)["present"])


def test_the_client_gets_the_models_own_refusal(client, volume):
    with pytest.raises(InvalidRequest) as expected:
        client.segment(volume, ["liver"] * 65)
    with pytest.raises(InvalidRequest) as found:
        client.segment(volume, ["liver"] * 65, progress=lambda *_: None)
    assert str(found.value) == str(expected.value)
    assert client.segment(volume, "liver", progress=lambda *_: None).prompts == ("liver",)  # and goes on


def test_a_client_that_is_closed_meanwhile_ends_its_stream(server, volume):
    """As the command line does when it is stopped."""
    client = Client(server.grpc_url, timeout_s=300)
    with pytest.raises(MedImageParseError):
        client.segment(volume, PROMPTS, progress=lambda done, *_: Thread(target=client.close).start())


def test_the_stream_is_none_of_one_answer(server, request_of):
    with inferring(server, STREAM, OUTPUTS) as infer, pytest.raises(InferenceServerException, match="decoupled"):
        infer(request_of())
