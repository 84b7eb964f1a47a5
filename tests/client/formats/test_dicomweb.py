"""A series from a real archive over WADO-RS, and files back over STOW-RS."""

import io
import json
import shlex
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import dicom_bytes
from helpers.dicom_series import affine_of, compressed, make_series, phantom, save_series
from helpers.orthanc import WHY_NOT, orthanc
from helpers.pages import blocks
from medimageparse_client import Client, InvalidVolume, MedImageParseError
from medimageparse_client.cli import main
from medimageparse_client.formats import dicomweb
from medimageparse_client.formats.dicom_series import files, read_series
from medimageparse_client.formats.dicomweb_address import parse_address
from pydicom.uid import RLELossless, generate_uid

PLACE = "dicomweb://HOST/PATH/studies/UID/series/UID"
[COMMANDS] = [block.code for block in blocks("docs/dicom.md") if PLACE in block.code]
SERIES = "studies/1.2.3/series/1.2.4"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The address of a series in it, of compressed oblique slices, and its REST interface."""
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    made = make_series(orientation="oblique")
    with orthanc(tmp_path_factory.mktemp("orthanc")) as (root, rest):
        address = f"dicomweb+http://{root}/studies/{made[0].StudyInstanceUID}/series/{made[0].SeriesInstanceUID}"
        dicomweb.store(address, [dicom_bytes(compressed(header, RLELossless)) for header in made])
        yield address, rest


@pytest.mark.slow
def test_a_series_comes_out_of_an_archive_as_it_was_stored(archive):
    series = read_series(archive[0])
    np.testing.assert_array_equal(np.asarray(series.volume.dataobj), phantom())
    np.testing.assert_allclose(series.volume.affine, affine_of("oblique"), atol=1e-6)
    assert len(series.sources) == 8


@pytest.mark.slow
def test_the_client_and_the_command_take_an_address(archive, triton, tmp_path, capsys):
    with Client() as client:
        assert client.segment(archive[0], "liver").label_map.shape == phantom().shape
    assert main(["segment", archive[0], "liver", "-o", f"{tmp_path}/"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["series.json", "series.nii.gz"]


@pytest.mark.slow
def test_the_command_of_the_page_stores_a_seg_beside_the_series(archive, triton, tmp_path, capsys):
    address, rest = archive
    with urllib.request.urlopen(f"{rest}/instances") as answer:
        before = set(json.load(answer))
    [line] = [line for line in COMMANDS.splitlines() if line.startswith("medimageparse ")]
    command = shlex.split(line.replace(PLACE, address))[1:]
    assert address in command
    assert main([*command, "--seg-type", "labelmap"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "wrote: the archive of the series"
    assert parse_address(address).study not in told.out + told.err
    with urllib.request.urlopen(f"{rest}/instances") as answer:
        [new] = set(json.load(answer)) - before
    with urllib.request.urlopen(f"{rest}/instances/{new}/file") as answer:
        seg = pydicom.dcmread(io.BytesIO(answer.read()))
    assert (seg.SegmentationType, seg.StudyInstanceUID) == ("LABELMAP", parse_address(address).study)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == parse_address(address).series
    request = urllib.request.Request(f"{rest}/instances/{new}", method="DELETE")
    urllib.request.urlopen(request).close()


def test_store_needs_an_address(triton, tmp_path, capsys):
    folder = save_series(make_series(), tmp_path / "series")
    assert main(["segment", str(folder), "liver", "--store"]) == 5
    assert "give a dicomweb:// address" in capsys.readouterr().err
    assert not triton.requests


@pytest.mark.slow
def test_what_is_stored_joins_the_study(archive):
    address, rest = archive
    [extra] = make_series(StudyInstanceUID=parse_address(address).study, SeriesInstanceUID=generate_uid())[:1]
    dicomweb.store(address, [dicom_bytes(extra)])
    with urllib.request.urlopen(f"{rest}/studies") as answer:
        [study] = json.load(answer)
    with urllib.request.urlopen(f"{rest}/studies/{study}/instances") as answer:
        assert len(json.load(answer)) == 9


@pytest.mark.slow
def test_a_series_that_is_not_there_is_called_so(archive):
    address = archive[0].rsplit("/", 1)[0] + "/1.2.3"
    with pytest.raises(MedImageParseError, match="does not give this series") as caught:
        read_series(address)
    assert "1.2.3" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "value"), [("MAX_FILES", 7), ("MAX_BYTES", 1000)])
def test_what_an_archive_sends_is_bounded(limit, value, archive, monkeypatch):
    monkeypatch.setattr(files, limit, value)
    with pytest.raises(InvalidVolume, match="over"):
        read_series(archive[0])


class Refusing(BaseHTTPRequestHandler):
    """Answers `status` to everyone and keeps what they say of themselves."""

    status = 401

    def do_GET(self):
        self.server.seen.append(self.headers["Authorization"])
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words):
        pass


@pytest.fixture
def refusing():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    server.seen = []
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "refuses access.*MEDIMAGEPARSE_DICOMWEB_TOKEN"),
        (403, "refuses access"),
        (404, "check the UIDs"),
        (501, "501"),
    ],
)
def test_the_token_is_sent_and_told_in_no_message(status, sentence, refusing, monkeypatch):
    monkeypatch.setenv(dicomweb.TOKEN, "open-sesame")
    monkeypatch.setattr(Refusing, "status", status)
    with pytest.raises(MedImageParseError, match=sentence) as caught:
        read_series(f"dicomweb+http://127.0.0.1:{refusing.server_port}/{SERIES}")
    assert refusing.seen == ["Bearer open-sesame"]
    assert "sesame" not in str(caught.value)
    assert "1.2.4" not in str(caught.value)


def test_the_token_is_never_sent_in_clear_to_another_machine(monkeypatch):
    monkeypatch.setenv(dicomweb.TOKEN, "open-sesame")
    with pytest.raises(MedImageParseError, match="would travel in clear"):
        read_series(f"dicomweb+http://pacs.example/{SERIES}")


def test_an_archive_that_is_not_there_is_called_so():
    with pytest.raises(MedImageParseError, match=r"127\.0\.0\.1:1 is not available"):
        read_series(f"dicomweb://127.0.0.1:1/dicom-web/{SERIES}")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (f"dicomweb://pacs/{SERIES}", "https://pacs"),
        (f"dicomweb://pacs:8443/a/rs/{SERIES}/", "https://pacs:8443/a/rs"),
        (f"dicomweb+http://[::1]:8042/dicom-web/{SERIES}", "http://[::1]:8042/dicom-web"),
    ],
)
def test_an_address_is_taken_apart(text, url):
    address = parse_address(text)
    assert (address.url, address.study, address.series) == (url, "1.2.3", "1.2.4")


@pytest.mark.parametrize(
    "text",
    [
        "dicomweb://pacs",
        "dicomweb://pacs/studies/1.2",
        f"dicomweb://me:secret@pacs/{SERIES}",
        f"dicomweb://pacs/{SERIES}?a",
    ],
)
def test_other_addresses_are_refused_and_not_repeated(text):
    with pytest.raises(InvalidVolume, match="not the address of a series") as caught:
        read_series(text)
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_a_file_from_an_archive_is_one_that_pydicom_reads(archive):
    first = dicomweb.fetch_series(archive[0], 100, 2**30)[0]
    assert pydicom.dcmread(io.BytesIO(first)).file_meta.TransferSyntaxUID == RLELossless
