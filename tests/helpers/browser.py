"""The viewer in a headless Chromium: what a user does there, and what the page must never do."""

import io
import shutil
from base64 import b64encode
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

PATIENCE_MS = 120_000  # for a machine that does much else; nothing is asserted about times
# a test runs as root in a container, where Chromium's sandbox does not start; WebGL 2 without a GPU
FLAGS = ("--no-sandbox", "--enable-unsafe-swiftshader", "--force-color-profile=srgb")
DESKTOP, PHONE = {"width": 1120, "height": 720}, {"width": 360, "height": 740}
NOTHING_STORED = """async () => [localStorage.length, sessionStorage.length, document.cookie.length,
    (await indexedDB.databases()).length, (await caches.keys()).length]"""
DROP = """([data, name]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}"""


@contextmanager
def chromium():
    """A browser, for a module of tests: as long as it is there, asyncio has a running loop in this thread."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


class Viewer:
    """The page, and what it asked for and said since it was loaded last."""

    def __init__(self, page, url):
        self.page = page
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: self.requests.append(request))
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        self.visit(url)

    def visit(self, url):
        """Loads the page anew: nothing is left of what was done there."""
        self.url, self.requests, self.said = url, [], []
        self.page.goto(url + "/viewer")

    def drop(self, data, name="patient-0815.nii.gz"):
        self.page.evaluate(DROP, [b64encode(data).decode(), name])

    def open(self, data, name="patient-0815.nii.gz"):
        """Drops a file and waits until it is shown, and for its structures."""
        self.drop(data, name)
        self.page.wait_for_selector("#image-facts:has-text(': ')")
        self.page.wait_for_selector("#catalogue label")

    def type(self, *prompts):
        for prompt in prompts:
            self.page.fill("#search", prompt)
            self.page.press("#search", "Enter")

    def ask(self, *prompts):
        """Types prompts, asks, and waits for the answer."""
        self.type(*prompts)
        self.page.click("#segment")
        self.wait_for_answer()

    def wait_for_answer(self):
        self.page.wait_for_selector("#progress", state="hidden")
        assert not self.error(), self.error()
        self.settle()

    def error(self):
        return self.page.inner_text("#error") if self.page.is_visible("#error") else ""

    def wait_for_error(self):
        self.page.wait_for_selector("#error", state="visible")
        return self.error()

    def settle(self):
        """Waits until what was drawn is on the screen."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def legend(self):
        """Rows of texts: structure, amount, score."""
        rows = self.page.query_selector_all("#legend tr")
        return [[cell.inner_text() for cell in row.query_selector_all("td")[1:]] for row in rows]

    def colour(self, name):
        """[r,g,b] of the legend's square beside a name."""
        row = self.page.locator("#legend tr", has_text=name)
        text = row.locator(".swatch").evaluate("square => getComputedStyle(square).backgroundColor")
        return [int(part) for part in text.removeprefix("rgb(").removesuffix(")").split(",")]

    def pixels(self, selector=".pictures"):
        """What is seen of an element: uint8 [H,W,3]."""
        self.settle()
        shot = self.page.locator(selector).screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))

    def set_opacity(self, percent):
        self.page.fill("#opacity", str(percent))
        self.settle()

    def check(self):
        """What holds after everything that a user may do."""
        elsewhere = [r.url for r in self.requests if not r.url.startswith((self.url + "/", "data:", "blob:"))]
        assert not elsewhere
        assert all("0815" not in request.url for request in self.requests)
        # of the browser itself: how its software drawing fares, and the statuses that a test provokes
        said = [line for line in self.said if "GPU stall" not in line and "Failed to load resource" not in line]
        assert not said
        assert self.page.evaluate(NOTHING_STORED) == [0, 0, 0, 0, 0]


@contextmanager
def viewing(browser, url, **options):
    """A Viewer in a window of its own; a breach of the content security policy is said on the console."""
    context = browser.new_context(viewport=DESKTOP, accept_downloads=True, **options)
    try:
        viewer = Viewer(context.new_page(), url)
        yield viewer
        viewer.check()
    finally:
        context.close()


def where(pixels, colour, tolerance=4):
    """bool [H,W]: the pixels of a colour."""
    return (np.abs(pixels.astype(int) - colour) <= tolerance).all(-1)
