import numpy as np
import pytest
from helpers.dicom_series import DIRECTIONS, affine_of, make_series, phantom, save_series
from highdicom import get_volume_from_series
from medimageparse_client.formats.dicom_series import read_series

LPS_TO_RAS = np.diag([-1, -1, 1, 1])


@pytest.mark.parametrize("orientation", DIRECTIONS)
def test_voxels_and_places_are_those_of_highdicom(orientation, tmp_path):
    made = make_series(orientation=orientation)
    series = read_series(save_series(made[::-1], tmp_path))
    voxels = np.asarray(series.volume.dataobj)
    assert voxels.dtype == np.int16
    np.testing.assert_array_equal(voxels, phantom())
    np.testing.assert_allclose(series.volume.affine, affine_of(orientation), atol=1e-6)
    assert [source.SOPInstanceUID for source in series.sources] == [header.SOPInstanceUID for header in made]
    theirs = get_volume_from_series(made)
    # theirs is slices first, and in whichever direction: compare voxel by voxel in the patient
    to_ours = np.linalg.inv(series.volume.affine) @ LPS_TO_RAS @ theirs.affine
    for index in np.ndindex(*theirs.spatial_shape):
        x, y, z = np.rint(to_ours[:3] @ (*index, 1)).astype(int)
        assert voxels[x, y, z] == theirs.array[index]
