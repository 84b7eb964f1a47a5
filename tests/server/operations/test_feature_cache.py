"""Who asks the same volume for something else does not wait for the image encoder, and gets the same bits."""

import shutil

import numpy as np
import pytest
from helpers.running_server import triton_server
from medimageparse_client import Client
from medimageparse_serving.step_environment import CACHE_BYTES

COUNTING = """
from pathlib import Path

from medimageparse_serving.triton.onnxruntime_model import TritonPythonModel as Network


class TritonPythonModel(Network):
    def run(self, feeds, names):
        with Path({file!r}).open("a") as file:
            file.write("run\\n")
        return super().run(feeds, names)
"""


@pytest.fixture
def runs(tmp_path):
    """How often the image encoder has computed so far."""
    file = tmp_path / "runs"
    return lambda: len(file.read_text().splitlines()) if file.exists() else 0


@pytest.fixture
def counting(tmp_path, monkeypatch, volumes_alone):
    """A client of a server that keeps features, as it is served."""
    monkeypatch.delenv(CACHE_BYTES)
    repository = shutil.copytree(volumes_alone, tmp_path / "model_repository")
    runner = repository / "image_encoder_3d" / "1" / "onnxruntime_model.py"
    runner.write_text(COUNTING.format(file=str(tmp_path / "runs")))
    with triton_server(repository) as server, Client(server.grpc_url, timeout_s=300) as client:
        yield client


def test_a_second_prompt_costs_no_image_encoder(counting, runs, client, volume):
    first = counting.segment(volume, "liver")
    n_windows = runs()
    assert n_windows == 2  # of five slices
    for prompts in (["spleen", "stomach"], ["liver"]):
        again, expected = counting.segment(volume, prompts), client.segment(volume, prompts)
        assert np.array_equal(again.label_map, expected.label_map)
        assert np.array_equal(again.scores, expected.scores)
    assert runs() == n_windows
    assert np.array_equal(again.label_map, first.label_map)
    counting.segment(volume.slicer[:, :, 1:], "liver")
    assert runs() > n_windows
