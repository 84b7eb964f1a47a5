"""The bar of slices on a terminal, and none elsewhere."""

import io
import itertools
from contextlib import redirect_stderr

import nibabel as nib
import numpy as np
import pytest
from medimageparse_client.cli import main
from medimageparse_client.cli.console import bar_of_parts
from medimageparse_client.cli.waiting import count_slices
from medimageparse_serving.volume.nifti_volume import Limits, Options, decode_volume
from PIL import Image

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


def test_a_terminal_shows_tiles(triton, terminal, tmp_path):
    triton.models, triton.tiles = (*triton.models, "medimageparse_stream"), 6
    Image.new("RGB", (8, 6), "red").save(tmp_path / "field.png")
    command = ["segment-image", str(tmp_path / "field.png"), "cells", "--force", "-o", str(tmp_path / "masks.png")]
    with terminal() as drawn:
        assert main([*command, "--tile"]) == 0
    assert "6/6" in drawn.getvalue()
    assert "tile/s" in drawn.getvalue()
    with terminal() as drawn:
        assert main(command) == 0
    assert "tile" not in drawn.getvalue()
    assert [request["model"] for request in triton.requests] == ["medimageparse_stream", "medimageparse"]


def test_an_image_without_tiles_has_no_bar(terminal):
    with terminal() as drawn, bar_of_parts("") as progress:
        assert progress is None
    assert drawn.getvalue() == ""


def test_a_server_that_is_asked_again_begins_anew(terminal):
    with terminal() as drawn, bar_of_parts("slice") as progress:
        for done in (0, 4, 8, 0, 4):
            progress(done, 9, ("liver",) * done)
    last = drawn.getvalue().rstrip("\r ").rpartition("\r")[2]
    assert "4/9" in last


def test_a_server_that_tells_no_slices_is_waited_for(terminal):
    with terminal() as drawn, bar_of_parts("slice"):
        pass
    assert "sent, waiting for the answer: 00:00" in drawn.getvalue()


def test_a_wait_says_how_many_slices_were_sent(streaming, terminal, volume_file, tmp_path):
    command = ["segment", str(volume_file), "--prompt", "liver", "--force", "-o", str(tmp_path / "masks.nii.gz")]
    for options, words in ([], "sent; 8 slices, waiting"), (["--slice-axis", "1"], "sent; 12 slices, waiting"):
        with terminal() as drawn:
            assert main([*command, *options]) == 0
        assert words in drawn.getvalue()


LIMITS = Limits(2**30, 2**30, 2**28, 4096, 2048)
AXES = [(order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)]


@pytest.mark.parametrize("shape", [(10, 12, 4), (4, 15, 6), (8, 8, 20)])
def test_as_many_slices_are_told_as_the_server_makes(shape, tmp_path):
    path = tmp_path / "ct.nii"
    for order, signs in AXES:
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[list(order)].T * signs
        nib.save(nib.Nifti1Image(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), affine), path)
        for orientation, slice_axis in itertools.product(("LAS", "stored"), ("auto", "0", "2")):
            made, _ = decode_volume(path.read_bytes(), Options("none", orientation, slice_axis), LIMITS)
            assert count_slices(path, orientation, slice_axis) == len(made)


def test_of_what_is_no_nifti_nobody_knows_beforehand(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"no volume")
    for source in (tmp_path / "a.nii", tmp_path / "gone.nii", b"bytes", "dicomweb://a/studies/1/series/2", tmp_path):
        assert count_slices(source, "LAS", "auto") is None
