"""The caller's mistake to either model is INVALID_ARGUMENT (HTTP 400) and one sentence; the server lives on."""

import base64
import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from helpers import wrong_images, wrong_volumes
from medimageparse_contract.models import MODEL_2D, MODEL_3D
from tritonclient.utils import InferenceServerException

WRONG = {MODEL_3D: wrong_volumes, MODEL_2D: wrong_images}
LONGEST = {MODEL_3D: 250, MODEL_2D: 300}  # characters of a sentence
BOTH = pytest.mark.parametrize("model", WRONG)
EVERY_CHANGE = [
    pytest.param(model, change, id=f"{model}-{name}")
    for model, wrong in WRONG.items()
    for name, change in wrong.WRONG.items()
]
EVERY_IMAGE = [(model, image) for model, wrong in WRONG.items() for image in wrong.WRONG_IMAGES]


@pytest.fixture(scope="module")
def ask(infer, infer_image):
    return {MODEL_3D: infer, MODEL_2D: infer_image}


@pytest.fixture(scope="module")
def servers(server, both_models):
    """Those that `ask` asks."""
    return {MODEL_3D: server, MODEL_2D: both_models}


@pytest.fixture(scope="module")
def good(volume, request_of):
    """Right requests, and the outputs that are the same for each."""
    return {
        MODEL_3D: (request_of(volume.slicer[:, :, 2:3], ["liver", "spine"]), ("nifti_file", "label_map", "scores")),
        MODEL_2D: ({"image": wrong_images.PNG, "text": b"lung"}, ("image_features",)),
    }


def request_with(model, change):
    return {name: value for name, value in (WRONG[model].REQUEST | change).items() if value is not None}


def assert_a_sentence(model, message):
    sentence = re.sub(rf"^(in ensemble '{model}', )?", "", message)
    assert 20 < len(sentence) < LONGEST[model]
    for unwanted in ("\n", "Traceback", 'File "', "/", ".py", "Error", "0x", WRONG[model].SECRET):
        assert unwanted not in sentence


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(("model", "change"), EVERY_CHANGE)
def test_a_wrong_request_is_refused_with_a_sentence(ask, model, change, protocol):
    with pytest.raises(InferenceServerException) as refused:
        ask[model](request_with(model, change), protocol)
    assert refused.value.status() == {"grpc": "StatusCode.INVALID_ARGUMENT", "http": "400"}[protocol]
    assert_a_sentence(model, refused.value.message())


@pytest.mark.parametrize(("model", "image"), EVERY_IMAGE)
def test_generate_refuses_a_wrong_image_too(servers, model, image):
    sent = {"image": base64.b64encode(WRONG[model].WRONG_IMAGES[image]).decode(), "text": WRONG[model].SECRET}
    url = f"http://{servers[model].http_url}/v2/models/{model}/generate"
    headers = {"Content-Type": "application/json"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, json.dumps(sent).encode(), headers), timeout=300)
    with refused.value as answer:
        assert answer.code == 400
        assert_a_sentence(model, json.load(answer)["error"])


@BOTH
@pytest.mark.parametrize("group", ["image", "text", "option", "tensor"])
def test_the_server_lives_on(ask, good, model, group):
    request, outputs = good[model]
    before = ask[model](request)
    for name, change in WRONG[model].WRONG.items():
        if name.startswith(group):
            with pytest.raises(InferenceServerException):
                ask[model](request_with(model, change))
    after = ask[model](request)
    for name in outputs:
        assert np.array_equal(after[name], before[name])


@pytest.mark.parametrize(
    ("model", "n_prompts", "options", "output"),
    [
        (MODEL_3D, 64, {}, "scores"),
        (MODEL_2D, 64, {}, "text_features"),
        (MODEL_2D, 16, {"joint": np.array([False])}, "text_features"),
    ],
)
def test_the_most_prompts_that_are_taken(ask, good, model, n_prompts, options, output):
    many = b" & ".join(b"structure %d" % number for number in range(n_prompts))
    found = ask[model](good[model][0] | {"text": many} | options)
    assert len(found[output]) == n_prompts


@BOTH
def test_nothing_of_the_requests_is_in_the_log(ask, servers, model):
    ask[model](WRONG[model].REQUEST)
    log = Path(servers[model].log.name).read_text()
    assert "Started GRPCInferenceService" in log  # it is the whole log
    assert WRONG[model].SECRET not in log
