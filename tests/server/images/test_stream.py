"""The stream of medimageparse: the same answer and the same refusals, and progress on the way."""

import json

import numpy as np
import pytest
from helpers.image_answers import image_file, maps_of, report_of
from helpers.inference import IMAGE_OUTPUTS, IMAGE_PROMPTS, streaming
from medimageparse.variants import TINY_2D
from medimageparse_client import Client
from medimageparse_contract.models import MODEL_2D, STREAMS
from tritonclient.utils import InferenceServerException

STREAM = STREAMS[MODEL_2D]
TEXT = " & ".join(IMAGE_PROMPTS).encode()
TILE = {"tile": np.array([True])}


@pytest.fixture(scope="module")
def field():
    """Of 2 x 3 tiles."""
    shape = (TINY_2D.image_size + 20, 2 * TINY_2D.image_size + 9, 3)
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def streamed(server, inputs, outputs=("progress", *IMAGE_OUTPUTS)):
    with streaming(server, STREAM, inputs, outputs) as responses:
        return list(responses)


@pytest.mark.parametrize(("options", "n_tiles"), [(TILE, 6), ({}, 1)], ids=["tiles", "one"])
def test_the_answer_is_that_of_the_model_and_tiles_are_counted(both_models, infer_image, field, options, n_tiles):
    sent = {"image": image_file(field), "text": TEXT, **options}
    expected = infer_image(sent)
    *told, last = streamed(both_models, sent)
    assert np.array_equal(maps_of(last), maps_of(expected))
    assert report_of(last)["image"] == report_of(expected)["image"]
    told = [json.loads(response["progress"].item()) for response in told]
    assert [progress["tiles_done"] for progress in told] == list(range(n_tiles + 1))
    assert {progress["tiles"] for progress in told} == {n_tiles} == {report_of(expected)["image"]["tiles"]}
    found = [set(progress["prompts_found"]) for progress in told]
    assert found[0] == set()
    assert all(before <= after for before, after in zip(found, found[1:], strict=False))
    assert found[-1] >= {prompt["text"] for prompt in report_of(expected)["prompts"] if prompt["present"]}


def test_a_refusal_has_the_sentence_and_the_code_of_the_model(both_models, infer_image, field):
    for wrong in ({"image": b"no picture"}, {"text": b" & "}, {"image_type": b"OCT"}, {"output": b"mask"}):
        sent = {"image": image_file(field), "text": TEXT, **TILE, **wrong}
        with pytest.raises(InferenceServerException) as expected:
            infer_image(sent)
        with pytest.raises(InferenceServerException) as found:
            streamed(both_models, sent)
        assert found.value.message().replace(STREAM, MODEL_2D) == f"INVALID_ARGUMENT: {expected.value.message()}"


def test_the_client_watches_and_gets_the_same(both_models, infer_image, field):
    told = []
    with Client(both_models.grpc_url) as client:
        result = client.segment_image(field, list(IMAGE_PROMPTS), tile=True, progress=lambda *words: told.append(words))
    expected = infer_image({"image": image_file(field), "text": TEXT, **TILE})
    assert np.array_equal(result.probabilities, maps_of(expected))
    assert [(done, total) for done, total, _ in told] == [(done, 6) for done in range(7)]
