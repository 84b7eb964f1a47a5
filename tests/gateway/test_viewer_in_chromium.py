"""The viewer in Chromium before models that stand in for Triton's."""

import gzip
import hashlib
import io
import re
import struct
import zlib
from base64 import b64encode

import nibabel as nib
import numpy as np
import pytest
from helpers.browser import chromium, viewing
from helpers.gateway import PATIENCE_S, FakeModels, running_gateway
from helpers.image_answers import image_file
from medimageparse_gateway.errors import TritonError
from medimageparse_gateway.settings import Key
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser(one_gateway):
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def window(browser, one_gateway):
    """One for all tests: in another Chromium would compile the page anew."""
    with viewing(browser, one_gateway.url) as viewer:
        yield viewer


@pytest.fixture
def visit(window, before):
    """visit(models) -> the page, just loaded, before these models."""

    def visit(models):
        window.visit(before(models).url)
        return window

    yield visit
    window.check()


@pytest.fixture
def viewer(visit, models):
    """The page, just loaded."""
    return visit(models)


@pytest.fixture
def used_viewer(window, gateway):
    """The page as the last test left it."""
    yield window
    window.check()


def filtered(labels, filters):
    """A PNG of palette indices [H,W] whose rows have these filters, its pixels in several chunks."""
    above = np.zeros(labels.shape[1], int)
    rows = b""
    for row, kind in zip(labels.astype(int), filters, strict=True):
        left, corner = np.r_[0, row[:-1]], np.r_[0, above[:-1]]
        nearest = np.abs(np.array([above - corner, left - corner, left + above - 2 * corner])).argmin(0)
        paeth = np.choose(nearest, [left, above, corner])
        predicted = [0, left, above, (left + above) // 2, paeth][kind]
        rows += bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
        above = row
    packed = zlib.compress(rows)
    height, width = labels.shape
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)), (b"PLTE", bytes(768))]
    chunks += [(b"IDAT", packed[at : at + 100]) for at in range(0, len(packed), 100)] + [(b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


READ_LABELS = """async (text) => {
    const { readLabels } = await import("./viewer/png.js");
    return Array.from(await readLabels(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))));
}"""


@pytest.mark.parametrize("filters", [*([kind] * 12 for kind in range(5)), [4, 3, 2, 1, 0, 1, 2, 3, 4, 0, 4, 2]])
def test_labels_are_read_from_a_png_with_every_filter(used_viewer, filters):
    labels = np.random.default_rng(3).integers(0, 256, (12, 17), dtype=np.uint8)
    file = filtered(labels, filters)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), labels)
    read = used_viewer.page.evaluate(READ_LABELS, b64encode(file).decode())
    np.testing.assert_array_equal(np.reshape(read, labels.shape), labels)


def test_structures_that_were_chosen_for_a_volume_are_not_asked_of_an_image(viewer, volume_file, picture_file):
    viewer.open(volume_file)
    viewer.type("liver")
    assert viewer.page.is_enabled("#segment")
    viewer.open(picture_file, "a.png")
    viewer.page.wait_for_selector("#segment:text-is('Segment'):disabled")
    assert not viewer.page.query_selector_all("#chosen li[title]")


@pytest.fixture
def noise_file():
    """A .nii.gz of Hounsfield units."""
    voxels = np.random.default_rng(0).integers(-1000, 1000, (10, 12, 8), dtype=np.int16)
    return gzip.compress(nib.Nifti1Image(voxels, np.diag([-2.0, 2, 3, 1])).to_bytes())


class SlowModels(FakeModels):
    """Tells of one window of slices, and waits to be released before the rest."""

    async def stream(self, model, inputs, outputs, **options):
        told = b'{"slices_done": 3, "slices": 8, "prompts_found": ["the left lobe"]}'
        yield {"progress": np.array([told], np.object_)}
        yield await self.infer(model, inputs, [name for name in outputs if name != "progress"], **options)


def test_slices_and_what_was_found_are_shown_while_the_model_works(visit, volume_file):
    models = SlowModels(is_held=True, slices=8)
    viewer = visit(models)
    viewer.open(volume_file)
    viewer.type("the left lobe", "spleen")
    viewer.page.click("#segment")
    viewer.page.wait_for_selector("text=/3 of 8 slices. Found: the left lobe./")
    progress = viewer.page.locator("#progress")
    assert (progress.get_attribute("value"), progress.get_attribute("max")) == ("3", "8")
    assert viewer.page.is_disabled("#segment")
    models.release()
    viewer.wait_for_answer()
    assert [row[0] for row in viewer.legend()] == ["the left lobe", "Spleen"]


@pytest.mark.parametrize("how", ["button", "key", "another file"])
def test_a_request_that_the_user_cancels_ends_the_models_work(visit, volume_file, how):
    models = SlowModels(is_held=True, slices=8)
    viewer = visit(models)
    viewer.open(volume_file)
    viewer.type("liver")
    viewer.page.click("#segment")
    viewer.page.wait_for_selector("text=/3 of 8/")
    {
        "button": lambda: viewer.page.click("#cancel"),
        "key": lambda: viewer.page.keyboard.press("Escape"),
        "another file": lambda: viewer.drop(volume_file),
    }[how]()
    assert models.cancelled.wait(PATIENCE_S)
    viewer.page.wait_for_selector("#cancel", state="hidden")
    assert not viewer.error()
    assert not viewer.legend()


REFUSALS = [
    TritonError("invalid_argument", "the volume has one slice; send two at least"),
    TritonError("queue_full", "the model is busy"),
    TritonError("timeout", "it took too long"),
    TritonError("unavailable", "the model does not answer now"),
    TritonError("internal", "a step failed"),
]


@pytest.mark.parametrize("kind", ["volume", "image"])
def test_every_kind_of_failure_is_a_sentence(viewer, models, noise_file, picture_file, kind):
    viewer.open(*((noise_file,) if kind == "volume" else (picture_file, "a.png")))
    viewer.type("liver")
    for models.error in REFUSALS:
        viewer.page.click("#segment")
        words = models.error.sentence
        assert viewer.wait_for_error() == words[0].upper() + words[1:] + "."
        assert viewer.page.is_enabled("#segment")


WRONG_FILES = {
    "text": (b"Hello", "neither"),
    "nothing": (b"", "neither"),
    "dicom": (bytes(128) + b"DICM" + bytes(200), "neither"),
    "zip": (b"PK\x03\x04" + bytes(100), "neither"),
    "gzip of text": (gzip.compress(b"Hello " * 100), "NIfTI"),
    "cut gzip": (gzip.compress(nib.Nifti1Image(np.ones((9, 9, 9), "i2"), np.eye(4)).to_bytes())[:-20], "NIfTI"),
    "cut nifti": (nib.Nifti1Image(np.ones((9, 9, 9), "i2"), np.eye(4)).to_bytes()[:700], "NIfTI"),
    "nifti header alone": (nib.Nifti1Image(np.ones((9, 9, 9), "i2"), np.eye(4)).to_bytes()[:352], "NIfTI"),
    "cut nifti-2": (nib.Nifti2Image(np.ones((9, 9, 9), "i2"), np.eye(4)).to_bytes()[:900], "NIfTI"),
    "cut big-endian nifti": (
        nib.Nifti1Image(np.ones((9, 9, 9), ">i2"), np.eye(4), nib.Nifti1Header(endianness=">")).to_bytes()[:700],
        "NIfTI",
    ),
    "cut png": (image_file(np.zeros((50, 50, 3), np.uint8))[:40], "image"),
    "png signature": (b"\x89PNG\r\n\x1a\n", "image"),
    "jpeg start": (b"\xff\xd8\xff\xe0" + bytes(20), "image"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_file_that_cannot_be_shown_is_a_sentence_and_the_next_one_opens(used_viewer, volume_file, name):
    data, word = WRONG_FILES[name]
    used_viewer.drop(data)
    assert word in used_viewer.wait_for_error()
    assert used_viewer.page.is_visible("#welcome")
    used_viewer.open(volume_file)
    assert not used_viewer.error()
    assert "10 × 12 × 8 voxels" in used_viewer.page.inner_text("#image-facts")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_every_kind_of_nifti_file_is_shown(used_viewer, kind, order, pack):
    header = kind.header_class(endianness=order)
    voxels = np.arange(7 * 8 * 9, dtype=f"{order}i2").reshape(7, 8, 9)
    used_viewer.open(pack(kind(voxels, np.diag([2.0, 2, 3, 1]), header).to_bytes()))
    assert not used_viewer.error()
    assert used_viewer.page.inner_text("#image-facts").endswith("7 × 8 × 9 voxels of 2 × 2 × 3 mm")


def test_a_gateway_that_is_gone_is_a_sentence(browser, volume_file):
    with running_gateway() as gateway, viewing(browser, gateway.url) as viewer:
        viewer.open(volume_file)
        viewer.type("liver")
        viewer.page.context.set_offline(True)
        viewer.page.click("#segment")
        assert viewer.wait_for_error().startswith("The gateway does not answer.")
        viewer.page.context.set_offline(False)
        viewer.page.click("#segment")
        viewer.wait_for_answer()


def test_a_key_is_asked_for_and_kept_in_memory_only(browser, volume_file):
    secret = "sesame-4711"
    key = Key("radiology", hashlib.sha256(secret.encode()).hexdigest())
    with running_gateway(keys=(key,)) as gateway, viewing(browser, gateway.url) as viewer:
        viewer.drop(volume_file)
        assert "key" in viewer.wait_for_error()
        viewer.page.fill("#key", "another")
        viewer.page.click("#use-key")
        viewer.page.wait_for_selector("#key-dialog[open]")
        viewer.page.fill("#key", secret)
        viewer.page.press("#key", "Enter")
        viewer.page.wait_for_selector("#catalogue label")
        assert not viewer.error()
        viewer.ask("liver")
        assert viewer.page.input_value("#key") == ""
        assert viewer.page.get_attribute("#key", "type") == "text"  # browsers offer to store passwords
        assert all(secret not in request.url for request in viewer.requests)
        viewer.page.reload()
        viewer.drop(volume_file)
        assert "key" in viewer.wait_for_error()


def test_neither_the_files_name_nor_a_key_or_prompt_is_in_a_log(viewer, volume_file, capfd):
    viewer.open(volume_file)
    viewer.ask("my secret prompt")
    assert [row[0] for row in viewer.legend()] == ["my secret prompt"]
    (post,) = [request for request in viewer.requests if request.method == "POST"]
    assert b"0815" not in (post.post_data_buffer or b"")
    out, err = capfd.readouterr()
    assert not re.search("0815|secret", out + err)


def test_structures_are_found_by_name_alias_and_modality(viewer, volume_file):
    viewer.open(volume_file)
    viewer.page.select_option("#modality", "CT")
    viewer.page.fill("#search", "suprarenal")
    names = viewer.page.locator("#catalogue label").all_inner_texts()
    assert names == ["Left adrenal gland", "Right adrenal gland"]
    viewer.page.check("#catalogue label:has-text('Left adrenal') input")
    assert [chip.inner_text() for chip in viewer.page.query_selector_all("#chosen li span:nth-child(2)")] == names[:1]
    viewer.page.fill("#search", "")
    viewer.page.select_option("#preset", "ct-abdomen")
    viewer.page.click("text=/Choose all/")
    assert (
        viewer.page.inner_text("#segment") == f"Segment {viewer.page.locator('#chosen li[title]').count()} structures"
    )
    viewer.page.click("[aria-label='Remove Liver']")
    assert not viewer.page.is_checked("#catalogue label:has-text('Liver') >> nth=0")


def test_keys_do_not_act_while_the_user_types(viewer, volume_file):
    viewer.open(volume_file)
    viewer.page.keyboard.press("/")
    viewer.page.keyboard.type("what 5 h o ?")
    assert viewer.page.input_value("#search") == "what 5 h o ?"
    assert viewer.page.is_checked("[name=view][value=planes]")
    viewer.page.keyboard.press("Enter")
    viewer.page.keyboard.press("Control+Enter")
    viewer.page.wait_for_selector("#legend tr")
    viewer.wait_for_answer()


def test_everything_can_be_reached_by_the_keyboard_and_has_a_name(viewer, volume_file):
    viewer.open(volume_file)
    viewer.ask("liver", "spleen")
    nameless = viewer.page.evaluate("""() =>
        [...document.querySelectorAll("button, input:not([hidden]), select, canvas[role]")]
            .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length))
            .map((one) => one.outerHTML)""")
    assert not nameless
    out_of_reach = viewer.page.evaluate("""() =>
        [...document.querySelectorAll("button, select, summary")].filter((one) => one.tabIndex < 0).length""")
    assert out_of_reach == 0


def test_an_amount_is_in_voxels_where_the_file_has_no_unit_and_warnings_are_shown(viewer, models, volume_file):
    models.voxel_ml, models.warnings = None, ("the file does not say the sides",)
    viewer.open(volume_file)
    viewer.ask("liver")
    assert viewer.legend()[0][1].endswith(" voxels")
    assert viewer.page.inner_text("#warnings") == "The file does not say the sides."
