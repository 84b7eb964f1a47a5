import nibabel as nib
import numpy as np
import pytest
from medimageparse_client.formats.dicom_series import read_series
from medimageparse_demo.series import write_series


@pytest.mark.parametrize("sides", [(-1, 1, 1), (1, -1, -1)])
def test_a_volume_comes_back_from_the_series_voxel_by_voxel(sides, tmp_path):
    values = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4) - 50
    image = nib.Nifti1Image(values, np.diag([*np.array([0.8, 0.7, 2.5]) * sides, 1]))
    write_series(image, tmp_path)
    series = read_series(tmp_path).volume
    there = np.linalg.inv(series.affine) @ image.affine
    for index in np.ndindex(values.shape):
        x, y, z = np.rint(there[:3] @ (*index, 1)).astype(int)
        assert series.dataobj[x, y, z] == values[index]
