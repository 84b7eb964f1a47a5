"""The bar of slices on a terminal, and none elsewhere."""

import io
from contextlib import redirect_stderr

import pytest
from medimageparse_client.cli import main
from medimageparse_client.cli.console import bar_of_slices

STREAM = "medimageparse_3d_stream"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal():
    """A block whose standard error is a terminal; what was written to it."""
    return lambda: redirect_stderr(Terminal())


@pytest.fixture
def streaming(triton):
    triton.models = (*triton.models, STREAM)
    return triton


def test_a_terminal_shows_slices_seconds_and_prompts_found(streaming, terminal, volume_file, tmp_path):
    command = ["segment", str(volume_file), "--prompt", "liver", "-o", str(tmp_path / "masks.nii.gz")]
    with terminal() as drawn:
        assert main(command) == 0
    drawn = drawn.getvalue()
    assert "8/8" in drawn
    assert "slice/s" in drawn
    assert "prompts found: 1" in drawn
    assert drawn.endswith("\r")  # the bar is taken away
    assert [request["model"] for request in streaming.requests] == [STREAM]


def test_elsewhere_nothing_is_drawn_and_no_stream_is_asked_for(streaming, volume_file, tmp_path, capsys):
    assert main(["segment", str(volume_file), "--prompt", "liver", "-o", str(tmp_path / "masks.nii.gz")]) == 0
    assert capsys.readouterr().err == ""
    assert [request["model"] for request in streaming.requests] == ["medimageparse_3d"]


def test_an_image_has_no_slices(terminal):
    with terminal() as drawn, bar_of_slices(False) as progress:
        assert progress is None
    assert drawn.getvalue() == ""


def test_a_server_that_is_asked_again_begins_anew(terminal):
    with terminal() as drawn, bar_of_slices(True) as progress:
        for done in (0, 4, 8, 0, 4):
            progress(done, 9, ("liver",) * done)
    last = drawn.getvalue().rstrip("\r ").rpartition("\r")[2]
    assert "4/9" in last


def test_a_server_that_tells_no_slices_is_waited_for(terminal):
    with terminal() as drawn, bar_of_slices(True):
        pass
    assert "sent, waiting for the answer: 00:00" in drawn.getvalue()
