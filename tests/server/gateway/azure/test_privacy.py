"""No key, prompt or byte of an image is in a log line, a file or a metric, however a request ends."""

import base64
from pathlib import Path

from helpers.azure_requests import table_of
from helpers.image_answers import image_file
from PIL.PngImagePlugin import PngInfo

from .conftest import KEYS

PROMPT, NOTE, WRONG_KEY = "zebrafish-7391", "wolverine-2846", "albatross-6054"
PLANTED = (PROMPT, NOTE, WRONG_KEY, *KEYS.values())


def test_what_was_planted_is_found_nowhere(locked, demos, xrays):
    notes = PngInfo()
    notes.add_text("Patient", NOTE)
    file = image_file(xrays[0][::2, ::2], pnginfo=notes)
    key = {"authorization": f"Bearer {KEYS['radiology']}"}
    statuses = [
        locked.ask("/score", table_of(file, text=PROMPT, params=PROMPT), **key).status,
        locked.ask("/score", table_of(file, text=f"{PROMPT} &"), **key).status,
        locked.ask("/score", table_of(file[: len(file) // 2], text=PROMPT), **key).status,
        locked.ask("/score", table_of(NOTE.encode(), text=PROMPT), **key).status,
        locked.ask("/score", {"input_data": {"columns": [PROMPT, NOTE], "data": []}}, **key).status,
        locked.ask("/score", table_of(file, text=PROMPT), authorization=f"Bearer {WRONG_KEY}").status,
        locked.ask(f"/{PROMPT}?text={NOTE}", **key).status,
        locked.ask("/score", PROMPT.encode(), content_type=NOTE, **key).status,
    ]
    assert statuses == [200, 400, 400, 400, 400, 401, 404, 415]
    metrics = locked.ask("/metrics", **key)
    assert metrics.status == 200
    log, triton_log = locked.log.read_text(), Path(demos.log.name).read_text()
    assert log.count("\n") >= len(statuses)
    assert "infer_request" in triton_log or "inference_request" in triton_log
    for place in (log, triton_log, metrics.body.decode()):
        for planted in PLANTED:
            assert planted not in place
            assert base64.b64encode(planted.encode()).decode()[:-4] not in place
        assert base64.b64encode(file).decode()[:40] not in place
    assert not list(locked.folder.iterdir())
