"""The canary: the files that are sent, and what counts as an answer."""

import base64
import io
import json

import nibabel as nib
import numpy as np
import pytest
from medimageparse_contract.canary import BACKGROUND, BODY, ORGAN, SIDE, SLICES
from medimageparse_contract.models import MODEL_2D, PUBLIC_MODELS
from medimageparse_serving.launch import canary
from PIL import Image


def test_the_canaries_are_files_that_others_can_read():
    image = nib.Nifti1Image.from_bytes(canary.nifti_file())
    voxels = np.asanyarray(image.dataobj)
    assert voxels.shape == (SIDE, SIDE, SLICES)
    assert set(np.unique(voxels)) == {BACKGROUND, BODY, ORGAN}
    assert nib.aff2axcodes(image.affine) == ("L", "A", "S")
    picture = np.asarray(Image.open(io.BytesIO(canary.png_file())))
    assert np.array_equal(picture, voxels[:, :, 0].T)


@pytest.mark.parametrize("answer", ["", "{}", "[1]", '{"data": "AAAA", "shape": [1, 2, 2]}', '{"data": 3}'])
@pytest.mark.parametrize("model", PUBLIC_MODELS)
def test_what_is_no_segmentation_is_no_answer(model, answer):
    with pytest.raises(canary.CanaryError, match="no segmentation"):
        canary.segmentation_digest(model, answer)


def test_one_bit_makes_another_digest():
    masks = [bytearray(SIDE**2), bytearray(SIDE**2)]
    masks[1][77] = 1
    shape = [1, SIDE, SIDE]
    digests = {
        canary.segmentation_digest(MODEL_2D, json.dumps({"data": base64.b64encode(mask).decode(), "shape": shape}))
        for mask in masks
    }
    assert len(digests) == 2
