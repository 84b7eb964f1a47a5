"""One real tritonserver for the session, with the demo checkpoint, and small volumes to ask it about."""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from medimageparse_client import Client
from medimageparse_demo.phantoms import make_phantom
from medimageparse_demo.repository import WEIGHTS, demo_repository
from serve import TritonServer

MODEL = "medimageparse_3d"
OUTPUTS = ("nifti_file", "label_map", "scores", "report")
PROMPTS = ("liver", "CT imaging of the spleen within the abdomen", "stomach", "aorta", "spine")
TRANSPORTS = {"grpc": tritonclient.grpc, "http": tritonclient.http}


@pytest.fixture(scope="session")
def weights():
    """The demo's graphs: the committed ones, or those of a folder laid out alike."""
    folder = Path(os.environ.get("MEDIMAGEPARSE_DEMO_WEIGHTS", WEIGHTS))
    if not (folder / "segment_volume" / "1" / "networks.json").exists():
        pytest.fail("there are no demo graphs: make train-demo, or name a folder in MEDIMAGEPARSE_DEMO_WEIGHTS")
    return folder


@pytest.fixture(scope="session")
def repository(tmp_path_factory, weights):
    return demo_repository(tmp_path_factory.mktemp("demo") / "model_repository", weights)


@pytest.fixture(scope="session")
def server(tmp_path_factory, repository):
    path = tmp_path_factory.mktemp("log") / "triton.log"
    with path.open("w") as log, TritonServer(repository, log=log, verbose=True) as server:
        yield server


@pytest.fixture(scope="session")
def client(server):
    with Client(server.grpc_url, timeout_s=300) as client:
        yield client


@pytest.fixture(scope="session")
def infer(server):
    """infer({"image": ..., "text": ...}, protocol, outputs) -> output name to array: Triton's own client, not ours.

    A value is one BYTES element, or an array for requests that are not as the model wants them.
    """
    connections = {
        "grpc": tritonclient.grpc.InferenceServerClient(server.grpc_url),
        "http": tritonclient.http.InferenceServerClient(server.http_url, network_timeout=300),
    }

    def infer(inputs, protocol="grpc", outputs=OUTPUTS):
        transport, tensors = TRANSPORTS[protocol], []
        for name, value in inputs.items():
            array = value if isinstance(value, np.ndarray) else np.array([value], np.object_)
            kind = "BYTES" if array.dtype == np.object_ else tritonclient.utils.np_to_triton_dtype(array.dtype)
            tensors.append(transport.InferInput(name, array.shape, kind))
            tensors[-1].set_data_from_numpy(array)
        requested = [transport.InferRequestedOutput(name) for name in outputs]
        answer = connections[protocol].infer(MODEL, tensors, outputs=requested)
        return {name: answer.as_numpy(name) for name in outputs}

    yield infer
    for connection in connections.values():
        connection.close()  # an open HTTP connection would make the server wait its whole exit time-out


@pytest.fixture(scope="session")
def phantom():
    """An unseen CT phantom at full size: 192 x 192 x 30."""
    return make_phantom(4, "CT")


@pytest.fixture(scope="session")
def volume(phantom):
    """Five slices through liver, spleen and stomach, every second voxel in plane: int16 HU, LAS, 88 x 72 x 5.

    All sides differ, and the last window of slices is a short one.
    """
    image = nib.Nifti1Image(phantom.intensities, phantom.affine).slicer[8:184:2, 24:168:2, 20:25]
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, "scanner")
    image.set_qform(image.affine, "aligned")
    return image


@pytest.fixture(scope="session")
def request_of(volume):
    """The inputs of a request for `volume`, or for another image, with options added."""

    def request_of(image=volume, prompts=PROMPTS, **options):
        data = image if isinstance(image, bytes) else gzip.compress(image.to_bytes(), 1)
        return {"image": data, "text": " & ".join(prompts).encode(), **{n: o.encode() for n, o in options.items()}}

    return request_of


@pytest.fixture(scope="session")
def answer(infer, request_of):
    """All outputs for `volume` and PROMPTS over gRPC."""
    answer = infer(request_of())
    assert len(np.unique(answer["label_map"])) > 2  # or equal label maps would show nothing
    return answer
