"""The id of a request: the caller's or a made one goes to the server, and errors name it."""

import pytest
from helpers.image_answers import image_file
from medimageparse_client import Client
from medimageparse_client.cli import main
from medimageparse_client.errors import (
    InvalidRequest,
    MedImageParseError,
    RequestTimeout,
    ServerError,
    ServerUnavailable,
)
from medimageparse_contract.request_ids import is_request_id

PATIENT = "Jane Doe, 1970"


@pytest.fixture
def picture_file(tmp_path, volume):
    path = tmp_path / "xray.png"
    path.write_bytes(image_file(volume[:, :, 2].astype("uint8")))
    return path


@pytest.fixture(params=["volume", "image"])
def segment(request, triton, volume_file, picture_file):
    """segment(prompt, protocol, ...): of a volume, then of an image."""

    def segment(prompt="liver", protocol="grpc", **options):
        with Client("host:1", protocol=protocol, retries=2) as client:
            if request.param == "volume":
                return client.segment(volume_file, prompt, **options)
            return client.segment_image(picture_file, prompt, **options)

    return segment


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_callers_id_goes_to_the_server(segment, triton, protocol):
    segment(protocol=protocol, request_id="run-4.7")
    assert triton.ids == ["run-4.7"]


def test_so_it_does_in_a_stream(segment, triton):
    triton.models = (*triton.models, "medimageparse_3d_stream", "medimageparse_stream")
    segment(request_id="run-4.7", progress=lambda *told: None)
    assert triton.requests[-1]["model"].endswith("_stream")
    assert triton.ids == ["run-4.7"]


def test_without_one_each_request_has_a_new_one(segment, triton):
    segment()
    segment()
    first, second = triton.ids
    assert is_request_id(first)
    assert is_request_id(second)
    assert first != second


@pytest.mark.parametrize("word", [PATIENT, "", "a" * 65, "a/b", 7])
def test_a_word_that_is_no_id_is_refused_and_not_repeated(segment, triton, word):
    with pytest.raises(InvalidRequest, match="^a request id has 1 to 64 letters") as refused:
        segment(request_id=word)
    assert "Jane" not in str(refused.value)
    assert triton.requests == []


@pytest.mark.parametrize(
    ("prompt", "kind", "is_named"),
    [
        ("crash", ServerError, True),
        ("slow", RequestTimeout, True),
        ("refused", InvalidRequest, False),
        ("gone", ServerUnavailable, False),
    ],
)
def test_an_error_has_the_id_and_says_it_where_the_operator_is_to_look(segment, triton, prompt, kind, is_named):
    with pytest.raises(kind) as failed:
        segment(prompt, request_id="run-4.7")
    assert failed.value.request_id == "run-4.7"
    assert str(failed.value) == failed.value.sentence + (" (request run-4.7)" if is_named else "")


def test_all_tries_of_a_request_have_one_id(segment, triton):
    with pytest.raises(ServerUnavailable) as failed:
        segment("gone")
    assert triton.ids == [failed.value.request_id] * 3


def test_an_odd_answer_is_named_too(segment, triton):
    triton.missing_output = "report"
    with pytest.raises(ServerError, match=r"no report \(request run-4\.7\)$"):
        segment(request_id="run-4.7")


def test_what_was_never_sent_has_no_id(triton, tmp_path):
    with Client("host:1") as client, pytest.raises(MedImageParseError) as failed:
        client.segment(tmp_path / "nothing.nii.gz", "liver")
    assert failed.value.request_id == ""


def test_the_command_line_takes_one(triton, volume_file, picture_file, tmp_path):
    for command, file, output in (("segment", volume_file, "a.nii.gz"), ("segment-image", picture_file, "b.png")):
        assert main([command, str(file), "liver", "-o", str(tmp_path / output), "--request-id", "run-4.7"]) == 0
    assert triton.ids == ["run-4.7"] * 2


def test_the_command_line_refuses_other_words(triton, volume_file, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["segment", str(volume_file), "liver", "--request-id", PATIENT])
    told = capsys.readouterr().err
    assert "a request id has 1 to 64 letters" in told
    assert "Jane" not in told


def test_a_command_sums_up_equal_failures_of_requests_with_other_ids(triton, volume_file, tmp_path, capsys):
    other = tmp_path / "other.nii.gz"
    other.write_bytes(volume_file.read_bytes())
    files = [str(volume_file), str(other)]
    assert main(["segment", *files, "--prompt", "crash", "-o", str(tmp_path / "masks"), "--retry-for", "0"]) == 7
    told = capsys.readouterr().err
    for request_id in triton.ids:
        assert f"boom (request {request_id})" in told
    assert [line for line in told.splitlines() if line.endswith(": boom")]
