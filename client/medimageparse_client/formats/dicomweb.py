"""A DICOMweb address -> the files of its series (WADO-RS), and files -> its study (STOW-RS).

Needs the extra `dicom`. The archive's bearer token is in MEDIMAGEPARSE_DICOMWEB_TOKEN, and in no message.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient

from medimageparse_client.errors import AccessDenied, InvalidVolume, MedImageParseError, ServerUnavailable
from medimageparse_client.formats.dicom_header import PYDICOM_ERRORS, without_pydicoms_warnings
from medimageparse_client.formats.dicomweb_address import Address, parse_address

TOKEN = "MEDIMAGEPARSE_DICOMWEB_TOKEN"
TIMEOUT_S = (10, 300)  # to connect, and between two pieces of an answer
AS_STORED = ("application/dicom", "*")  # in whichever transfer syntax the archive has it


class Bearer(requests.auth.AuthBase):
    """Put in here and not as a header, so that no .netrc takes its place."""

    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class BoundedSession(requests.Session):
    """Gives up an answer that is longer than `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self.max_bytes = max_bytes
        self.hooks["response"].append(self.bound)
        self.answers: list[requests.Response] = []

    def close(self) -> None:
        for answer in self.answers:  # one that was given up still holds its connection
            answer.close()
        super().close()

    def bound(self, response: requests.Response, **options: Any) -> None:
        self.answers.append(response)
        iterate = response.iter_content

        def iter_content(*args: Any, **kwargs: Any) -> Iterator[Any]:
            n_bytes = 0
            for piece in iterate(*args, **kwargs):
                n_bytes += len(piece)
                if n_bytes > self.max_bytes:
                    raise InvalidVolume(f"the archive sends over {self.max_bytes >> 30} GiB for one series")
                yield piece

        response.iter_content = iter_content  # type: ignore[method-assign]


@without_pydicoms_warnings()
def fetch_series(text: str, max_files: int, max_bytes: int) -> list[bytes]:
    """The DICOM files of the series at an address, as the archive has them."""
    address = parse_address(text)
    files: list[bytes] = []
    with connected(address, max_bytes) as archive:
        for instance in archive.iter_series(address.study, address.series, media_types=(AS_STORED,)):
            if len(files) == max_files:
                raise InvalidVolume(f"the series has over {max_files} files")
            file = BytesIO()
            instance.save_as(file, enforce_file_format=True)
            files.append(file.getvalue())
    return files


def store(text: str, files: Sequence[bytes]) -> None:
    """Stores DICOM files, as a SEG of that series, in the study of an address."""
    address = parse_address(text)
    with connected(address, 2**30) as archive:
        answer = archive.store_instances([pydicom.dcmread(BytesIO(data)) for data in files], address.study)
        if failed := len(answer.get("FailedSOPSequence") or ()):
            raise ServerUnavailable(f"the archive at {address.host} did not store {failed} of {len(files)} files")


@contextmanager
def connected(address: Address, max_bytes: int) -> Iterator[DICOMwebClient]:
    """A connection; its errors become ours, without the UIDs that the library's own words hold."""
    token = os.environ.get(TOKEN)
    if token and not address.is_private:
        raise AccessDenied(f"the token would travel in clear over {address.scheme}; use dicomweb://, which is TLS")
    session = BoundedSession(max_bytes)
    session.auth = Bearer(token) if token else None
    try:
        with session:
            archive = DICOMwebClient(address.url, session=session, timeout=TIMEOUT_S)
            archive.set_http_retry_params(retry=False)  # who asks repeats, and its log would hold the address
            yield archive
    except MedImageParseError:
        raise
    except requests.HTTPError as error:
        raise error_of_status(address, error.response.status_code if error.response is not None else 0) from None
    except requests.RequestException as error:
        kind = "its certificate is not trusted" if isinstance(error, requests.exceptions.SSLError) else "no answer"
        raise ServerUnavailable(f"the archive at {address.host} is not available: {kind}") from None
    except PYDICOM_ERRORS:
        raise ServerUnavailable(f"the archive at {address.host} answered what is no DICOM") from None


def error_of_status(address: Address, status: int) -> MedImageParseError:
    if status in (401, 403):
        return AccessDenied(f"the archive at {address.host} refuses access (HTTP {status}); set {TOKEN}")
    if status in (400, 404, 406):
        return InvalidVolume(f"the archive at {address.host} does not give this series (HTTP {status}); check the UIDs")
    return ServerUnavailable(f"the archive at {address.host} answered HTTP {status}")
