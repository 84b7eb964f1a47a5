"""Real tritonservers for the session: one with the 3D demo, one with both models; volumes and an image to ask about."""

import gzip
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from helpers.image_answers import image_file
from helpers.inference import IMAGE_OUTPUTS, IMAGE_PROMPTS, OUTPUTS, PROMPTS, inferring
from helpers.running_server import triton_server
from helpers.served_repository import demo_repository, pared
from medimageparse.variants import TINY_2D
from medimageparse_client import Client
from medimageparse_contract.models import MODEL_2D, MODEL_3D
from medimageparse_demo.phantoms import make_phantom
from medimageparse_demo.repository import WEIGHTS, WEIGHTS_2D
from medimageparse_serving.step_environment import CACHE_BYTES

os.environ[CACHE_BYTES] = "0"  # work that tests count is done, however often they ask for it
# a proxy of the environment knows nothing of the servers here, and Triton's own clients would ask it
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"


@pytest.fixture(scope="session")
def weights():
    """The demo's graphs: the committed ones, or those of a folder laid out alike."""
    folder = Path(os.environ.get("MEDIMAGEPARSE_DEMO_WEIGHTS", WEIGHTS))
    if not (folder / "medimageparse_3d" / "1" / "networks.json").exists():
        pytest.fail("there are no demo graphs: make train-demo, or name a folder in MEDIMAGEPARSE_DEMO_WEIGHTS")
    return folder


@pytest.fixture(scope="session")
def repository(tmp_path_factory, weights):
    return demo_repository(tmp_path_factory.mktemp("demo") / "model_repository", weights)


@pytest.fixture(scope="session")
def images_alone(tmp_path_factory):
    """The 2D demo, the quickest to start, for tests that do not care what is served."""
    return pared(demo_repository(tmp_path_factory.mktemp("images_alone") / "model_repository", WEIGHTS_2D))


@pytest.fixture(scope="session")
def volumes_alone(tmp_path_factory, weights):
    """The 3D demo, for tests that start a server of it and care for no stream."""
    return pared(demo_repository(tmp_path_factory.mktemp("volumes_alone") / "model_repository", weights))


@pytest.fixture(scope="session")
def both_alone(tmp_path_factory):
    """Both demos, for tests that start a server of them and care for no stream."""
    return pared(demo_repository(tmp_path_factory.mktemp("both_alone") / "model_repository"))


@pytest.fixture(scope="session")
def both_demos(tmp_path_factory):
    """A repository of both public models with the demos' graphs."""
    return demo_repository(tmp_path_factory.mktemp("both_demos") / "model_repository")


@pytest.fixture(scope="session")
def server(tmp_path_factory, repository):
    path = tmp_path_factory.mktemp("log") / "triton.log"
    with path.open("w") as log, triton_server(repository, log=log, verbose=True) as server:
        yield server


@pytest.fixture(scope="session")
def client(server):
    with Client(server.grpc_url, timeout_s=300) as client:
        yield client


@pytest.fixture(scope="session")
def infer(server):
    with inferring(server, MODEL_3D, OUTPUTS) as infer:
        yield infer


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


@pytest.fixture(scope="session")
def tiny_2d_networks(exported):
    """Version folders of the TINY_2D networks with random weights."""
    return exported(TINY_2D, "fp32")


@pytest.fixture(scope="session")
def both_models(tmp_path_factory, weights, tiny_2d_networks):
    """A server of both public models: the 3D demo, and random networks for images."""
    repository = demo_repository(tmp_path_factory.mktemp("both") / "model_repository", weights)
    shutil.copytree(tiny_2d_networks, repository, dirs_exist_ok=True)
    path = tmp_path_factory.mktemp("log_both") / "triton.log"
    with path.open("w") as log, triton_server(repository, log=log, verbose=True) as server:
        yield server


@pytest.fixture(scope="session")
def infer_image(both_models):
    """As `infer`, for medimageparse."""
    with inferring(both_models, MODEL_2D, IMAGE_OUTPUTS) as infer:
        yield infer


@pytest.fixture(scope="session")
def picture():
    """A wide RGB image of random blocks, larger than the networks' images: [90,120,3]."""
    return np.random.default_rng(7).integers(0, 256, (15, 20, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)


@pytest.fixture(scope="session")
def image(picture):
    return image_file(picture)


@pytest.fixture(scope="session", params=[MODEL_3D, MODEL_2D])
def either(request):
    """Either model: its name, its server, `infer`, the inputs of a right request, and the names of its outputs."""
    get = request.getfixturevalue
    if request.param == MODEL_3D:
        parts = {"server": get("server"), "infer": get("infer"), "inputs": get("request_of")(), "outputs": OUTPUTS}
    else:
        inputs = {"image": get("image"), "text": " & ".join(IMAGE_PROMPTS).encode()}
        parts = {"server": get("both_models"), "infer": get("infer_image"), "inputs": inputs, "outputs": IMAGE_OUTPUTS}
    return SimpleNamespace(name=request.param, **parts)
