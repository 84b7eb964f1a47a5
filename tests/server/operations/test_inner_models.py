"""Inner models called by name with tensors that cannot be right: an error status and a sentence, no words or paths."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

PLANTED = "zebrafish-7391"
MODELS = {
    "medimageparse_3d": (
        "decode_volume",
        "tokenize_prompts",
        "text_encoder_3d",
        "image_encoder_3d",
        "mask_decoder_3d",
        "segment_window_3d",
        "encode_masks",
    ),
    "medimageparse": (
        "decode_image",
        "text_encoder",
        "image_encoder",
        "mask_decoder",
        "segment_pixels",
        "encode_probabilities",
    ),
}
OPTIONAL = ("output",)
JSON = ("geometry", "tokenize_report", "segment_report")
FOUND = {"window_size": 4, "highest_scores": [0.5, 0.5], "slices_scored": [0, 1], "lost_to": [[], []]}
MAY_BE_EMPTY = ("label_slices", "prompts", "prompt_groups", "window", "digit_values")  # no digits are black slices
MAY_BE_CUT = ("prompt_groups", "digit_values", "noise_fields")  # one noise field serves all prompts
WITH_TIMES = ("geometry", "tokenize_report", "report")


def texts(*values):
    return np.array(values, np.object_)


@pytest.fixture(scope="module")
def ask(both_models):
    """ask(model, {name: array}) -> all outputs by name."""
    with tritonclient.grpc.InferenceServerClient(both_models.grpc_url) as triton:

        def ask(model, arrays, key=None):
            tensors = []
            for name, array in arrays.items():
                tensors.append(tritonclient.grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
                tensors[-1].set_data_from_numpy(array)
            parameters = {"inner_key": key or both_models.inner_key}
            answer = triton.infer(model, tensors, client_timeout=60, parameters=parameters)
            return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}

        ask.inputs_of = lambda model: [tensor.name for tensor in triton.get_model_metadata(model).inputs]
        yield ask


@pytest.fixture(scope="module")
def good(both_models, ask, request_of, image):
    """Of each inner model a good request and its answer; tensors have one name from step to step."""
    random, found = np.random.default_rng(0), {}
    for public, models in MODELS.items():
        size = json.loads((both_models.repository / public / "1" / "networks.json").read_text())["image_size"]
        is_3d = public == "medimageparse_3d"
        report = {"networks": {}} | (FOUND if is_3d else {})
        known = {
            "image": texts(request_of()["image"] if is_3d else image),
            "text": texts(b"liver & spleen"),
            "window": random.integers(0, 255, (1, 3, size, size), np.uint8),
            "digit_values": np.ones(1, np.float32),
            "noise_fields": np.zeros(2, np.int64),
            "pixels": random.integers(0, 255, (1, size, size, 3), np.uint8),
            "segment_report": texts(json.dumps(report).encode()),
            "output": texts(b"all" if is_3d else b"masks"),
        }
        for model in ("tokenize_prompts", *models):
            inputs = {name: known[name] for name in ask.inputs_of(model) if name in known}
            answer = ask(model, inputs)
            assert "refusal" not in answer
            found[model] = inputs, answer
            known |= answer
    return found


def misfits(model, inputs):
    """What is wrong, and the request that has it."""
    for name, array in inputs.items():
        rest = {other: inputs[other] for other in inputs if other != name}
        if name not in OPTIONAL:
            yield f"no {name}", rest
        changes = {"of another type": np.zeros(array.shape), "of another rank": array[None]}
        if name not in MAY_BE_EMPTY:
            changes["empty"] = array[:0]
        if array.dtype != np.object_ and not model.startswith("encode") and name not in MAY_BE_CUT:
            changes["cut"] = np.ascontiguousarray(array[..., :-1])
        if name in JSON:
            wrong = ("", PLANTED, f'"{PLANTED}', json.dumps(PLANTED), json.dumps([PLANTED]), json.dumps({PLANTED: 1}))
            changes |= {f"of JSON number {i}": texts(text.encode()) for i, text in enumerate(wrong)}
        elif name != "image" and array.dtype == np.object_:
            changes["not UTF-8"] = texts(*[PLANTED.encode() + b"\xff"] * len(array))
        for what, change in changes.items():
            yield f"{name} {what}", rest | {name: change}


def refusal(ask, model, request):
    """Status and sentence; the public models make INVALID_ARGUMENT of the output `refusal`."""
    try:
        return "StatusCode.INVALID_ARGUMENT", ask(model, request)["refusal"].item().decode()
    except InferenceServerException as error:
        return error.status(), error.message()


@pytest.mark.parametrize("model", [model for models in MODELS.values() for model in models])
def test_tensors_that_cannot_be_right_get_a_sentence(both_models, ask, good, model):
    log = Path(both_models.log.name)
    said_before = log.stat().st_size
    inputs, expected = good[model]
    for what, request in misfits(model, inputs):
        status, sentence = refusal(ask, model, request)
        assert status == "StatusCode.INVALID_ARGUMENT", what
        assert 20 < len(sentence) < 500, what
        assert not [word for word in ("\n", "Traceback", "/", PLANTED) if word in sentence], what
    answer = ask(model, inputs)
    for name in answer.keys() - set(WITH_TIMES):
        assert np.array_equal(answer[name], expected[name])
    said = log.read_bytes()[said_before:].decode()
    assert PLANTED not in said
    assert "Traceback" not in said
    assert not [line for line in said.splitlines() if re.match(r"[EWF]\d{4} ", line)]  # what the log shows by default


@pytest.mark.parametrize("model", sorted({model for models in MODELS.values() for model in models}))
def test_callers_from_outside_are_told_whom_to_ask(ask, good, model):
    """With tensors that are right, and whatever they send for the word that the server's own pipelines know."""
    inputs, _ = good[model]
    for key in ("x", "None", "true", "*"):
        with pytest.raises(InferenceServerException) as refused:
            ask(model, inputs, key)
        assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert "ask medimageparse_3d or medimageparse" in refused.value.message()
