"""Stands in for Microsoft's toolkit for healthcare models: what it sends, when it tries again, how it reads answers.

Written from what the toolkit was seen to do; none of its code is here. Its waits are scaled down.
"""

import base64
import gzip
import io
import json
import random
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import nibabel as nib
import numpy as np
from PIL import Image

ATTEMPTS = 15
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.5, 120
SIDE = 1024  # pixels of every image that it sends
TRIED_AGAIN = (429, *range(500, 600))


class Refused(Exception):
    """An answer that it does not try again after."""

    def __init__(self, status, headers, body):
        super().__init__(f"{status}: {body}")
        self.status, self.headers, self.body = status, headers, body


class Toolkit:
    """A client of one endpoint. calls: the statuses that it got, None where there was no answer."""

    def __init__(self, url, key=None, wait_scale=0.001):
        self.url, self.key, self.wait_scale = url, key, wait_scale
        self.calls = []

    def submit(self, image_list, prompts):
        """All rows in one request: a list of results."""
        table = {
            "columns": ["image", "text"],
            "index": list(range(len(image_list))),
            "data": [list(row) for row in zip_longest(map(encode_image, image_list), prompts)],
        }
        return [decode_row(row) for row in json.loads(self.post({"input_data": table, "params": "sitk"}))]

    def create_submitter(self, batch_size=1):
        return Submitter(self, batch_size)

    def post(self, payload):
        """The body of a 200; Refused for all else that is not tried again."""
        for attempt in range(1, ATTEMPTS + 1):
            status, headers, body = self.call(json.dumps(payload).encode())
            self.calls.append(status)
            if status == 200:
                return body
            if status is not None and status not in TRIED_AGAIN or attempt == ATTEMPTS:
                raise Refused(status, headers, body)
            longest = min(2.0 ** (attempt - 1), LONGEST_WAIT_S)
            time.sleep(self.wait_scale * random.uniform(SHORTEST_WAIT_S, max(longest, SHORTEST_WAIT_S)))
        raise AssertionError("it has tried often enough")

    def call(self, body):
        headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip, deflate"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url, body, headers)) as answer:
                content = answer.read()
                if answer.headers.get("content-encoding") == "gzip":
                    content = gzip.decompress(content)
                return answer.status, answer.headers, content
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()
        except OSError:
            return None, {}, b""


class Submitter:
    """Rows in requests of a few, several requests at once."""

    def __init__(self, toolkit, batch_size, threads=5):
        self.toolkit, self.batch_size, self.threads = toolkit, batch_size, threads

    def submit(self, image_list, prompts):
        """(index, result) of each row, by their position in the answers."""
        starts = range(0, len(image_list), self.batch_size)
        batches = [slice(start, start + self.batch_size) for start in starts]
        with ThreadPoolExecutor(self.threads) as pool:
            answers = pool.map(lambda rows: self.toolkit.submit(image_list[rows], prompts[rows]), batches)
        results = [result for answer in answers for result in answer]
        return list(enumerate(results))


def encode_image(picture):
    """A picture as its toolkit sends it: RGB, square, PNG, base64 with line ends; None stays None."""
    if picture is None:
        return None
    content = io.BytesIO()
    Image.fromarray(picture).convert("RGB").resize((SIDE, SIDE)).save(content, "PNG")
    return base64.encodebytes(content.getvalue()).decode()


def decode_row(row):
    """A row with its masks as an array; whatever else it holds stays."""
    features = json.loads(row["image_features"])
    masks = np.frombuffer(base64.b64decode(features["data"]), np.dtype(features["dtype"]))
    result = {**row, "image_features": masks.reshape(features["shape"])}
    for category, mask in zip(result["text_features"], result["image_features"], strict=True):
        assert isinstance(category, str)
        assert mask[:, :].ndim == 2
    return result


def load_without_flush(nifti_file, buffering=-1):
    """A volume's answer as the 3D card reads it: the file is loaded before it is closed. buffering: of the file."""
    with tempfile.NamedTemporaryFile(suffix=".nii.gz", buffering=buffering) as file:
        file.write(base64.b64decode(json.loads(nifti_file)["data"]))
        image = nib.load(file.name)
        return image, np.asanyarray(image.dataobj)


def load_with_flush(nifti_file):
    """The same as the how-to reads it."""
    with tempfile.NamedTemporaryFile(suffix=".nii.gz") as file:
        file.write(base64.b64decode(json.loads(nifti_file)["data"]))
        file.flush()
        image = nib.load(file.name)
        return image, image.get_fdata()
