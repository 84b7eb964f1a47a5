"""The viewer's page and files, as the gateway gives them."""

import gzip
import hashlib
import re

import nibabel as nib
import numpy as np
import pytest
from helpers.gateway import running_gateway
from medimageparse_contract.options import INTENSITIES
from medimageparse_demo import viewer_phantoms
from medimageparse_gateway.settings import Key
from medimageparse_gateway.viewer import HERE
from PIL import Image

FILES = HERE / "files"
# of dist/niivue.umd.js in the npm package @niivue/niivue 0.69.0
NIIVUE_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"


def test_the_page_and_its_files_are_served_with_a_strict_policy(gateway):
    for path in ("/viewer", *(f"/viewer/{file.name}" for file in FILES.iterdir())):
        answer = gateway.http.get(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert gateway.http.get("/viewer/main.js").headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("path", ["__init__.py", "index.html", "..%2f__init__.py", "../app.py", "files", ""])
def test_nothing_else_of_the_folder_is_served(gateway, path):
    assert gateway.http.get(f"/viewer/{path}").status_code in (404, 307)


def test_with_a_slash_at_the_end_it_is_the_same_page(gateway):
    answer = gateway.http.get("/viewer/", follow_redirects=True)
    assert (answer.status_code, answer.url.path) == (200, "/viewer")


def test_a_file_that_the_browser_has_is_not_sent_again(gateway):
    tag = gateway.http.get("/viewer/niivue.umd.js").headers["etag"]
    answer = gateway.http.get("/viewer/niivue.umd.js", headers={"if-none-match": tag})
    assert (answer.status_code, answer.content) == (304, b"")


def test_the_page_needs_no_key_and_names_no_other_address():
    with running_gateway(keys=(Key("radiology", "0" * 64),)) as gateway:
        page = gateway.http.get("/viewer")
        assert page.status_code == gateway.http.get("/viewer/main.js").status_code == 200
    own = [page.text, *(file.read_text() for file in FILES.glob("*.[jc]s*") if file.name != "niivue.umd.js")]
    assert not re.findall(r"https?://", "".join(own))


def test_niivue_is_the_published_one():
    assert hashlib.sha256((FILES / "niivue.umd.js").read_bytes()).hexdigest() == NIIVUE_SHA256
    assert "0.69.0" in (FILES / "niivue-LICENSE.txt").read_text()


def test_the_phantoms_are_those_that_the_script_makes():
    committed = nib.Nifti1Image.from_bytes(gzip.decompress((FILES / "phantom.nii.gz").read_bytes()))
    made = viewer_phantoms.volume()
    np.testing.assert_array_equal(committed.dataobj, made.dataobj)
    np.testing.assert_allclose(committed.affine, made.affine, atol=1e-4)
    pictures = (np.asarray(picture, int) for picture in (Image.open(FILES / "phantom.png"), viewer_phantoms.picture()))
    np.testing.assert_allclose(*pictures, rtol=0, atol=1)  # on another processor sines and powers round otherwise


def test_the_page_offers_the_intensities_of_the_contract():
    (select,) = re.findall(r'<select id="intensity">.*?</select>', (HERE / "index.html").read_text(), re.DOTALL)
    assert tuple(re.findall(r'value="([^"]*)"', select)) == INTENSITIES
