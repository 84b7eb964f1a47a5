import pytest
from helpers.dicom_series import PROMPTS, save_series
from medimageparse_client import Client


@pytest.fixture
def segment(triton, tmp_path):
    """The result for a series, saved in an order that says nothing."""

    def segment(series, **options):
        folder = save_series(series[::-1], tmp_path / series[0].SOPInstanceUID)
        with Client() as client:
            return client.segment(folder, PROMPTS, **options)

    return segment
