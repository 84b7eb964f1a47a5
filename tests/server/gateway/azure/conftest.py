"""Gateways as processes before real tritonservers with the demo checkpoints, and pictures and volumes to ask about."""

import gzip
import hashlib

import nibabel as nib
import numpy as np
import pytest
from helpers.azure_toolkit import Toolkit
from helpers.gateway_process import gateway_process
from helpers.inference import inferring
from helpers.running_server import triton_server
from medimageparse_contract.models import MODEL_2D, MODEL_3D
from medimageparse_demo.images import make_image
from medimageparse_demo.phantoms import make_phantom

KEYS = {"radiology": "primary-4711", "research": "secondary-0815"}


@pytest.fixture(scope="session")
def demos(tmp_path_factory, both_alone):
    """A server of both demos that logs all it can."""
    path = tmp_path_factory.mktemp("azure") / "triton.log"
    with path.open("w") as log, triton_server(both_alone, log=log, verbose=True, flags=("--log-verbose=2",)) as server:
        yield server


@pytest.fixture(scope="session")
def gateway(tmp_path_factory, demos):
    with gateway_process(tmp_path_factory.mktemp("azure") / "open", demos.grpc_url) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def locked(tmp_path_factory, demos):
    """A gateway with two keys, which takes bodies of 64 MiB at most."""
    keys = [(name, hashlib.sha256(key.encode()).hexdigest()) for name, key in KEYS.items()]
    folder = tmp_path_factory.mktemp("azure") / "locked"
    with gateway_process(folder, demos.grpc_url, keys, max_body_bytes=64 * 2**20) as gateway:
        yield gateway


@pytest.fixture
def toolkit(gateway):
    return Toolkit(f"{gateway.url}/score")


@pytest.fixture(scope="session")
def infer_2d(demos):
    with inferring(demos, MODEL_2D, ("image_features", "text_features")) as infer:
        yield infer


@pytest.fixture(scope="session")
def infer_3d(demos):
    with inferring(demos, MODEL_3D, ("nifti_file", "label_map")) as infer:
        yield infer


@pytest.fixture(scope="session")
def xrays():
    """Seven pictures, uint8 [H,W,3]."""
    return [make_image(seed, "X-Ray-Chest").pixels for seed in range(7)]


@pytest.fixture(scope="session")
def small_volume():
    """8 x 8 x 4 voxels: its label map is a file of some hundred bytes."""
    voxels = np.random.default_rng(3).integers(-100, 200, (8, 8, 4)).astype(np.int16)
    return nib.Nifti1Image(voxels, np.array([[-2, 0, 0, 9], [0, 2.5, 0, -7], [0, 0, 5, 3], [0, 0, 0, 1]]))


@pytest.fixture(scope="session")
def long_volume():
    """Half a minute of work: 120 windows of four slices."""
    phantom = make_phantom(6, "CT", (40, 128, 128))
    image = nib.Nifti1Image(np.tile(phantom.intensities, 12), phantom.affine)
    return gzip.compress(image.to_bytes(), 1)
