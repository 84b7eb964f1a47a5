import itertools

import nibabel as nib
import numpy as np
import pytest
from helpers.fake_server import FakeTriton
from medimageparse_client import connection, repeat
from medimageparse_client.cli import gateway
from tritonclient.utils import InferenceServerException


@pytest.fixture
def triton(monkeypatch):
    """The class that both transports of the client use instead of a server, with its settings."""

    class Triton(FakeTriton):
        requests = []
        stopped = []
        images = []
        ids = []
        failures = {
            "refused": InferenceServerException(
                "in ensemble 'medimageparse_3d', the prompt is bad; send another", "StatusCode.INVALID_ARGUMENT"
            ),
            "crash": InferenceServerException("boom\n\nAt:\n  /srv/model.py(3): execute", "StatusCode.INTERNAL"),
            "slow": InferenceServerException("Deadline Exceeded", "StatusCode.DEADLINE_EXCEEDED"),
            "gone": InferenceServerException("socket closed", "StatusCode.UNAVAILABLE"),
        }

    monkeypatch.setattr(connection, "GrpcServer", Triton)
    monkeypatch.setattr(connection, "HttpServer", Triton)
    monkeypatch.setattr(repeat, "pauses", lambda: itertools.repeat(1e-4))
    monkeypatch.setattr(gateway, "USUAL_PORT", 1)  # nobody listens there
    return Triton


@pytest.fixture
def affine():
    """Oblique, left-handed, anisotropic."""
    turn = nib.eulerangles.euler2mat(0.1, 0.2, 0.3)
    return nib.affines.from_matvec(turn @ np.diag([-0.8, 0.7, 2.5]), [10, -20, 30])


@pytest.fixture
def volume():
    """Integers [x,y,z] with a block of 1 and a block of 2 in zeros."""
    volume = np.zeros((10, 12, 8), np.int16)
    volume[2:5, 2:6, 1:4] = 1
    volume[6:9, 7:11, 4:7] = 2
    return volume


@pytest.fixture
def volume_file(tmp_path, volume, affine):
    path = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(volume, affine), path)
    return path
