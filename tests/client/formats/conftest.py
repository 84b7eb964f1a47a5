import io
import runpy
import subprocess
import sys

import pytest
from medimageparse_client.formats import dicom_pixels


class Buffered(io.TextIOWrapper):
    """A stream of text over bytes in memory."""

    def __init__(self, content=b""):
        super().__init__(io.BytesIO(content))


@pytest.fixture
def gdcm_within(monkeypatch):
    """The program that decodes with GDCM runs in this process, for files that do not end it: it starts faster."""

    def run(command, *, input, **options):
        assert command[2] == dicom_pixels.GDCM_PROGRAM
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", command[2:])
            patched.setattr(sys, "stdin", Buffered(input))
            patched.setattr(sys, "stdout", out := Buffered())
            try:
                runpy.run_path(command[2], run_name="__main__")
            except Exception as error:
                raise subprocess.CalledProcessError(1, command) from error
            return subprocess.CompletedProcess(command, 0, out.buffer.getvalue(), b"")

    monkeypatch.setattr(dicom_pixels.subprocess, "run", run)
