"""A caller who watches a volume: over gRPC by the server's stream, else once at the end."""

import nibabel as nib
import numpy as np
import pytest
from medimageparse_client import Client, InvalidRequest, RequestTimeout, ServerError, ServerUnavailable

STREAM = "medimageparse_3d_stream"
PROMPTS = ["liver", "spleen", "zebra"]


@pytest.fixture
def streaming(triton):
    triton.models = (*triton.models, STREAM)
    return triton


@pytest.fixture
def image(volume, affine):
    return nib.Nifti1Image(volume, affine)


def watched(image, prompts=PROMPTS, **options):
    told = []
    with Client(retries=0, **options) as client:
        return client.segment(image, prompts, progress=lambda *words: told.append(words)), told


def test_the_stream_tells_of_each_step_and_gives_the_same_answer(streaming, image):
    result, told = watched(image)
    assert told == [(done, 8, tuple(PROMPTS[:done])) for done in range(9)]
    with Client() as client:
        expected = client.segment(image, PROMPTS)
    assert np.array_equal(result.label_map, expected.label_map)
    assert result.report == expected.report
    assert [request["model"] for request in streaming.requests] == [STREAM, "medimageparse_3d"]
    assert streaming.requests[0]["outputs"] == ["progress", *streaming.requests[1]["outputs"]]
    assert streaming.stopped == [False]  # it had come to its end


@pytest.mark.parametrize("options", [{}, {"protocol": "http", "url": "localhost:8000"}], ids=["gRPC", "HTTP"])
def test_without_a_stream_the_end_is_told_once(triton, image, options):
    if options:  # the server has one, and HTTP cannot use it
        triton.models = (*triton.models, STREAM)
    _, told = watched(image, **options)
    assert told == [(8, 8, ("liver", "spleen"))]
    assert [request["model"] for request in triton.requests] == ["medimageparse_3d"]
    assert triton.stopped == []


def test_who_does_not_watch_gets_no_stream(streaming, image):
    with Client() as client:
        client.segment(image, PROMPTS)
    assert [request["model"] for request in streaming.requests] == ["medimageparse_3d"]


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [("refused", InvalidRequest), ("crash", ServerError), ("slow", RequestTimeout), ("gone", ServerUnavailable)],
)
def test_an_error_is_the_one_that_the_request_without_a_stream_gets(streaming, image, prompt, kind):
    with Client() as client, pytest.raises(kind) as expected:
        client.segment(image, prompt)
    with pytest.raises(kind) as found:
        watched(image, [prompt])
    assert found.value.sentence == expected.value.sentence
    assert streaming.stopped == [True]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError, ValueError, TypeError])
def test_what_the_callback_raises_ends_the_request_and_is_no_fault_of_the_server(streaming, image, fault):
    def progress(done, total, found):
        if done == 2:
            raise fault("enough")

    with Client() as client, pytest.raises(fault, match="enough"):
        client.segment(image, PROMPTS, progress=progress)
    assert streaming.stopped == [True]


@pytest.mark.parametrize("odd", [{"slices": "many"}, {"prompts_found": None}, {"slices_done": {}}], ids=str)
def test_odd_progress_is_an_error_of_the_server(streaming, image, odd):
    streaming.odd_progress = odd
    with pytest.raises(ServerError, match="its progress cannot be read"):
        watched(image)
    assert streaming.stopped == [True]
