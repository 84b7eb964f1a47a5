"""The image holds code alone: an export in the checkout puts no weights into it, whose licence is unclear."""

from helpers.places import ROOT
from medimageparse.repository_copy import BUILT_FILES

LINES = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]


def test_what_is_built_stays_out_of_the_image():
    """The last pattern that fits decides, so none may let a file in again after these."""
    last_let_in = max(index for index, line in enumerate(LINES) if line.startswith("!"))
    assert {f"**/{name}" for name in BUILT_FILES} <= set(LINES[last_let_in + 1 :])


def test_what_the_dockerfile_copies_is_let_in():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    words = [line.split() for line in lines if line.startswith("COPY ") and "--from" not in line]
    copied = {source.partition("/")[0] for _, *sources, _ in words for source in sources}
    assert copied
    assert {f"!{name}" for name in copied} <= set(LINES)
