"""The viewer in Chromium, before a real tritonserver with both demo checkpoints."""

import gzip
import io
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers.browser import PHONE, chromium, viewing, where
from helpers.gateway import running_gateway
from helpers.running_server import triton_server
from medimageparse_demo.viewer_phantoms import picture as phantom_picture
from medimageparse_demo.viewer_phantoms import volume as phantom_volume
from medimageparse_gateway.triton import connect
from medimageparse_serving.launch.serve import PUBLIC_MODELS
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

SCREENSHOTS = Path(__file__).parents[3] / "build" / "screenshots"
PROMPTS = ("Liver", "CT imaging of the spleen within the abdomen", "the left kidney", "stomach")
FOUND = ("Liver", "Spleen", "Stomach")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, both_demos):
    path = tmp_path_factory.mktemp("log_viewer") / "triton.log"
    with (
        path.open("w") as log,
        triton_server(both_demos, "cpu", PUBLIC_MODELS, log=log) as server,
        running_gateway(connect(server.grpc_url)) as gateway,
    ):
        yield gateway


@pytest.fixture(scope="module")
def browser(gateway):
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def window(browser, gateway):
    """One for all tests: in another Chromium would compile the page anew."""
    with viewing(browser, gateway.url) as viewer:
        yield viewer


@pytest.fixture
def viewer(window):
    """The page, just loaded."""
    window.visit(window.url)
    yield window
    window.check()


@pytest.fixture(scope="module")
def ct_file():
    """The phantom's upper abdomen: sixteen slices with liver, spleen and stomach."""
    return gzip.compress(phantom_volume().slicer[:, :, 44:60].to_bytes())


@pytest.fixture(scope="module")
def xray_file():
    file = io.BytesIO()
    phantom_picture().save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def answered_window(browser, gateway, ct_file):
    with viewing(browser, gateway.url) as viewer:
        viewer.open(ct_file)
        viewer.ask(*PROMPTS)
        yield viewer


@pytest.fixture
def answered(answered_window):
    """The phantom with its masks, which each test leaves shown."""
    yield answered_window
    answered_window.check()


def label_map(gateway, ct_file, prompts):
    form = {"files": {"image": ct_file}, "data": {"prompt": prompts}}
    return nib.Nifti1Image.from_bytes(gzip.decompress(gateway.http.post("/v1/volumes", **form).content))


def prompts_of(viewer):
    """Those of the chosen structures, as they are sent."""
    return [chip.get_attribute("title") for chip in viewer.page.query_selector_all("#chosen li[title]")]


def axial_slice(viewer, labels):
    """The slice [H,W] of a label map (LAS) where the crosshair is, as it is seen: right side left, front above."""
    z_mm = float(viewer.page.inner_text("#location").split(",")[2].split()[0])
    x, y, z = np.linalg.inv(labels.affine) @ [0, 0, z_mm, 1] @ np.eye(4)[:, :3]
    return np.asanyarray(labels.dataobj)[:, ::-1, round(z)].T


def on_the_screen(slice_labels, shape):
    """A square slice [n,n] enlarged to what the canvas shows of it: as high as it, in its middle. [H,W]"""
    height, width = shape
    rows = (np.arange(height) + 0.5) * len(slice_labels) / height
    columns = (np.arange(width) + 0.5 - (width - height) / 2) * len(slice_labels) / height
    shown = slice_labels[rows.astype(int)][:, np.clip(columns, 0, len(slice_labels) - 1).astype(int)]
    return np.where((columns >= 0) & (columns < len(slice_labels)), shown, 0)


def test_masks_of_a_dropped_file_lie_where_they_are_in_the_colours_of_the_legend(answered, gateway, ct_file):
    labels = label_map(gateway, ct_file, prompts_of(answered))
    answered.page.keyboard.press("2")
    answered.set_opacity(100)
    pixels = answered.pixels("#volume")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    answered.page.screenshot(path=SCREENSHOTS / "viewer_axial.png")
    expected = on_the_screen(axial_slice(answered, labels), pixels.shape[:2])
    seen = {name: where(pixels, answered.colour(name)) for name in FOUND}
    for label, name in ((1, "Liver"), (2, "Spleen"), (4, "Stomach")):
        inner, outer = (change(expected == label, iterations=8) for change in (binary_erosion, binary_dilation))
        assert inner.sum() > 1000, name
        assert (seen[name] & inner).sum() > 0.85 * inner.sum(), name  # the crosshair lies on some of it
        assert not (seen[name] & ~outer).any(), name


def test_the_legend_says_what_the_report_says_and_absent_ones_are_grey_and_last(answered, gateway, ct_file):
    form = {"files": {"image": ct_file}, "data": {"prompt": prompts_of(answered)}}
    report = gateway.http.post("/v1/volumes", headers={"accept": "application/json"}, **form).json()
    liver, spleen, kidney, stomach = report["prompts"]
    assert answered.legend() == [
        ["Liver", f"{liver['volume_ml']:.0f}", f"{liver['highest_score']:.2f}"],
        ["Spleen", f"{spleen['volume_ml']:.0f}", f"{spleen['highest_score']:.2f}"],
        ["Stomach", f"{stomach['volume_ml']:.0f}", f"{stomach['highest_score']:.2f}"],
        ["the left kidney", "not found", f"{kidney['highest_score']:.2f}"],
    ]
    rows = {row["name"]: row["rgb"] for row in gateway.http.get("/v1/structures?model=3d&modality=CT").json()}
    assert answered.colour("Liver") == rows["Liver"]
    assert answered.colour("Spleen") == rows["Spleen"]
    assert np.ptp(answered.colour("the left kidney")) < 20  # grey


def test_masks_are_hidden_and_shown_one_by_one_and_all_at_once(answered):
    colours = {name: answered.colour(name) for name in FOUND}
    answered.page.keyboard.press("2")
    answered.set_opacity(100)

    def shown():
        pixels = answered.pixels("#volume")
        return {name for name, colour in colours.items() if where(pixels, colour).sum() > 1000}

    assert shown() == set(FOUND)
    answered.page.click("[aria-label='Show Liver']")
    assert shown() == {"Spleen", "Stomach"}
    answered.page.click("[aria-label='Show Liver']")
    assert shown() == set(FOUND)
    answered.page.click("#show-all")
    assert shown() == set()
    answered.page.keyboard.press("h")
    assert shown() == set(FOUND)


def test_opacity_lies_between_the_image_and_the_colour(answered):
    colour = answered.colour("Liver")
    answered.page.keyboard.press("2")
    answered.set_opacity(0)
    image = answered.pixels("#volume").astype(int)
    answered.set_opacity(100)
    mask = where(answered.pixels("#volume"), colour)
    answered.set_opacity(50)
    half = answered.pixels("#volume").astype(int)
    assert mask.sum() > 1000
    assert not where(image, colour)[mask].any()
    np.testing.assert_allclose(half[mask], (image[mask] + colour) / 2, atol=6)


def test_other_structures_of_the_same_file_need_no_new_upload_by_the_user(viewer, ct_file):
    viewer.open(ct_file)
    viewer.ask(*PROMPTS)
    viewer.page.click("text=Remove all")
    viewer.ask("aorta")
    assert [row[0] for row in viewer.legend()] == ["Aorta"]
    assert [request.url for request in viewer.requests if request.method == "POST"] == [f"{viewer.url}/v1/volumes"] * 2


def test_label_map_and_report_are_downloaded_as_the_gateway_gives_them(answered, gateway, ct_file, tmp_path):
    expected = label_map(gateway, ct_file, prompts_of(answered))
    files = {}
    for button in ("#download-labels", "#download-report"):
        with answered.page.expect_download() as download:
            answered.page.click(button)
        files[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    assert list(files) == ["patient-0815_labels.nii.gz", "patient-0815_report.json"]
    labels = nib.Nifti1Image.from_bytes(gzip.decompress(files["patient-0815_labels.nii.gz"]))
    np.testing.assert_array_equal(np.asanyarray(labels.dataobj), np.asanyarray(expected.dataobj))
    np.testing.assert_array_equal(labels.affine, expected.affine)
    report = json.loads(files["patient-0815_report.json"])
    assert [prompt["present"] for prompt in report["prompts"]] == [True, True, False, True]


def test_windows_change_the_grey_values(viewer, ct_file):
    viewer.open(ct_file)
    viewer.page.keyboard.press("2")
    means = {}
    for name in viewer.page.locator("#window option").all_inner_texts():
        viewer.page.select_option("#window", name)
        means[name] = viewer.pixels("#volume").mean()
    assert len({round(mean) for mean in means.values()}) == len(means) == 6
    viewer.page.keyboard.press("w")
    assert viewer.page.input_value("#window") == "Soft tissue"
    assert viewer.pixels("#volume").mean() == pytest.approx(means["Soft tissue"])


def test_three_planes_and_3d_each_show_the_masks(answered):
    colour = answered.colour("Spleen")
    seen = []
    for key in "12345":
        answered.page.keyboard.press(key)
        seen.append(answered.pixels("#volume"))
    # 3D shades the masks: its spleen is the only thing that is more blue than green
    assert all((np.abs(shot.astype(int) - shot.mean(-1, keepdims=True)).max(-1) > 15).sum() > 500 for shot in seen)
    assert all((first != second).any() for first, second in zip(seen, seen[1:], strict=False))
    assert colour[2] > colour[1]


def test_arrows_go_through_the_slices(answered):
    answered.page.keyboard.press("2")
    before = answered.page.inner_text("#location")
    answered.page.keyboard.press("ArrowUp")
    assert answered.page.inner_text("#location") != before
    answered.page.keyboard.press("ArrowDown")
    assert answered.page.inner_text("#location") == before


def test_a_name_of_the_legend_leads_into_its_structure(answered):
    for name in FOUND:
        answered.page.locator("#legend .name", has_text=name).click()
        assert answered.page.inner_text("#location").endswith(name)


def test_an_image_has_its_masks_where_they_are(viewer, gateway, xray_file):
    viewer.open(xray_file, "xray.png")
    viewer.ask("left lung", "heart")
    form = {"files": {"image": xray_file}, "data": {"prompt": prompts_of(viewer)}}
    labels = np.asarray(Image.open(io.BytesIO(gateway.http.post("/v1/images", **form).content)))
    viewer.set_opacity(100)
    pixels = viewer.pixels("#picture")
    viewer.page.screenshot(path=SCREENSHOTS / "viewer_image.png")
    height, width = pixels.shape[:2]
    scale = min(height / labels.shape[0], width / labels.shape[1])
    rows = ((np.arange(height) + 0.5 - height / 2) / scale + labels.shape[0] / 2).astype(int)
    columns = ((np.arange(width) + 0.5 - width / 2) / scale + labels.shape[1] / 2).astype(int)
    is_inside = (rows[:, None] >= 0) & (rows[:, None] < labels.shape[0]) & (columns < labels.shape[1])
    shown = labels[np.clip(rows, 0, labels.shape[0] - 1)][:, np.clip(columns, 0, labels.shape[1] - 1)] * is_inside
    for label, name in ((1, "left lung"), (2, "heart")):
        seen = where(pixels, viewer.colour(name))
        assert (seen & (shown == label)).sum() > 0.98 * max(seen.sum(), (shown == label).sum()) > 1000, name
    report = gateway.http.post("/v1/images", headers={"accept": "application/json"}, **form).json()
    assert [row[1] for row in viewer.legend()] == [str(prompt["area_pixels"]) for prompt in report["prompts"]]


def test_the_built_in_phantoms_are_segmented(viewer):
    for button, name, prompt in (
        ("#phantom-ct", "Phantom CT", "liver"),
        ("#phantom-xray", "Phantom X-ray", "right lung"),
    ):
        viewer.page.click(button)
        viewer.page.wait_for_selector(f"#image-facts:has-text('{name}: ')")
        viewer.page.wait_for_selector(f"#catalogue label >> text=/{prompt}/i")
        viewer.ask(prompt)
        assert viewer.legend()[0][1] != "not found"


def test_what_is_typed_while_the_catalogue_of_another_model_comes_is_kept(viewer, ct_file, xray_file):
    viewer.open(ct_file)
    viewer.type("Liver")
    held = []
    viewer.page.route("**/v1/structures?model=2d", lambda route: held.append(route))
    viewer.drop(xray_file, "chest.png")
    viewer.page.wait_for_selector("#image-facts:has-text('chest.png: ')")
    assert viewer.page.locator("#catalogue label").count() == viewer.page.locator("#chosen li").count() == 0
    viewer.type("right lung")
    viewer.page.fill("#search", "heart")
    held[0].continue_()
    viewer.page.unroute("**/v1/structures?model=2d")
    viewer.page.wait_for_selector("#catalogue label")
    viewer.page.press("#search", "Enter")
    viewer.ask()
    assert [row[0].lower() for row in viewer.legend()] == ["right lung", "heart"]


@pytest.mark.parametrize("prompt", ["liver & spleen", "x" * 70_000])
def test_a_refusal_of_the_server_is_a_sentence(viewer, ct_file, prompt):
    viewer.open(ct_file)
    viewer.type(prompt)
    viewer.page.click("#segment")
    sentence = viewer.wait_for_error()
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert "page failed" not in sentence
    assert viewer.page.is_enabled("#segment")


def test_a_volume_that_the_model_refuses_is_a_sentence(viewer, ct_file):
    image = phantom_volume()
    twice = nib.Nifti1Image(np.stack([np.asanyarray(image.dataobj)] * 2, -1), image.affine)
    viewer.open(gzip.compress(twice.to_bytes()))
    viewer.type("liver")
    viewer.page.click("#segment")
    assert "send a 3D NIfTI volume" in viewer.wait_for_error()
    viewer.open(ct_file)
    assert not viewer.error()
    viewer.ask("liver")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser, gateway, ct_file):
    with viewing(browser, gateway.url, has_touch=True) as viewer:
        viewer.page.set_viewport_size(PHONE)
        viewer.open(ct_file)
        viewer.ask(*PROMPTS)
        assert viewer.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        for selector in ("#volume", "#legend", "#segment", "#search", "#download-labels", "#open-file"):
            box = viewer.page.locator(selector).bounding_box()
            assert 0 <= box["x"] < box["x"] + box["width"] <= PHONE["width"], selector
        viewer.page.screenshot(path=SCREENSHOTS / "viewer_phone.png", full_page=True)
