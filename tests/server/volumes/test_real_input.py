"""A real CT and a real MR through the demo server: the geometry comes back intact. The demo knows no anatomy."""

import nibabel as nib
import numpy as np
import pytest
from helpers.nifti_answers import assert_same_geometry
from helpers.places import SHARED
from medimageparse_client.evaluate.text_prompts import read_text_prompts

DATA = SHARED / "data"
# file, and the sides that its axes run to once they are (x, y, z): seen from where liver and forehead lie
CASES = {"CT_AMOS_amos_0018.npz": "LAS", "MR_BraTS-T1c_bratsgli_0017.npz": "LPS"}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """A case as a NIfTI file, and its sentences."""
    path = DATA / request.param
    if not path.exists():
        pytest.skip("the real cases are not part of the project: they lie in ../shared/data where it is developed")
    with np.load(path, allow_pickle=False) as arrays:
        voxels, spacing_mm = arrays["imgs"].transpose(2, 1, 0), arrays["spacing"]
    prompts = [sentences[0] for sentences in read_text_prompts(path).sentences.values()]
    sides = np.array([1 if side in "RAS" else -1 for side in CASES[request.param]])
    affine = nib.affines.from_matvec(np.diag(sides * spacing_mm), -sides * spacing_mm * np.array(voxels.shape) / 2)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, "scanner")
    file = tmp_path_factory.mktemp("real") / "volume.nii.gz"
    nib.save(image, file)
    return file, prompts, CASES[request.param]


def test_a_real_volume_is_taken_whole(client, case, tmp_path):
    file, prompts, axes = case
    image = nib.load(file)
    result = client.segment(file, prompts)
    result.save(tmp_path / "masks.nii.gz")
    assert_same_geometry(nib.load(tmp_path / "masks.nii.gz"), image)
    assert result.label_map.shape == image.shape
    assert result.label_map.max() <= len(prompts)
    assert result.scores.shape == (len(prompts), image.shape[2])
    assert np.isfinite(result.scores).all()
    assert result.report["image"]["stored_orientation"] == axes
    assert result.report["image"]["slice_axis_stored"] == 2
    assert result.report["image"]["intensity"]["used"] == "none"
    assert result.report["image"]["intensity"]["resized_as"] == "uint8"
    assert [entry["text"] for entry in result.report["prompts"]] == prompts
    assert not any(entry["truncated"] for entry in result.report["prompts"])
