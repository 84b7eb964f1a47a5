import gzip

import nibabel as nib
import numpy as np
import pytest
from helpers.gateway import FakeModels, running_gateway
from helpers.image_answers import image_file


@pytest.fixture(scope="session")
def one_gateway():
    with running_gateway() as gateway:
        yield gateway


@pytest.fixture
def before(one_gateway):
    """before(models) -> a gateway with the usual settings before these models; the same one for all tests."""

    def before(models):
        one_gateway.app.state.triton = models
        return one_gateway

    return before


@pytest.fixture
def models():
    return FakeModels()


@pytest.fixture
def gateway(before, models):
    return before(models)


@pytest.fixture(scope="session")
def volume_file():
    """A .nii.gz in which label 1 and 2 are blocks."""
    voxels = np.zeros((10, 12, 8), np.uint8)
    voxels[2:5, 2:6, 1:4], voxels[6:9, 7:11, 4:7] = 1, 2
    return gzip.compress(nib.Nifti1Image(voxels, np.diag([-2.0, 2, 3, 1])).to_bytes())


@pytest.fixture(scope="session")
def picture_file():
    """A PNG whose left half is red."""
    picture = np.zeros((6, 8, 3), np.uint8)
    picture[:, :4, 0] = 255
    return image_file(picture)
