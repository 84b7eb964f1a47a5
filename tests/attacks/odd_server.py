"""The other way round: a server that answers a client with what is no answer, or with far too much."""

import base64
import gzip
import json
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import nibabel as nib
import numpy as np
from medimageparse_client import Client, ServerError

from attacks.target import Target, demand, memory_of

MIB = 2**20
SHAPE = (4, 5, 3)


def odd_answers(target: Target) -> None:
    """Each is a ServerError: no traceback of another kind, no map of another shape, no memory for what is not ours."""
    volume = np.ones(SHAPE, np.int16)
    for answer in answers():
        with served(answer) as url, Client(url, timeout_s=60, retries=0) as client:
            before = memory_of(os.getpid(), "VmHWM")
            try:
                client.segment(volume, ["liver"], affine=np.eye(4))
                refused = False
            except ServerError:
                refused = True
        demand(refused, f"a client took an answer that begins with {answer[:40]!r}")
        grown = memory_of(os.getpid(), "VmHWM") - before
        demand(grown < 64 * MIB, f"a client took {grown / MIB:.0f} MiB for an answer of {len(answer) / MIB:.1f} MiB")


def answers() -> list[str]:
    """What stands in the output that holds the label map."""
    larger = nib.Nifti1Image(np.zeros((4, 5, 4), np.uint8), np.eye(4)).to_bytes()
    right = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4)).to_bytes()
    bomb = gzip.compress(right + bytes(256 * MIB), 1)
    files = [json.dumps({"data": base64.b64encode(data).decode()}) for data in (b"", gzip.compress(larger), bomb)]
    return ["", "{}", "[]", "3", '{"data": 3}', '{"data": "?"}', *files]


@contextmanager
def served(answer: str) -> Any:
    """The url of a server that answers everything so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            outputs = [
                {"name": "nifti_file", "datatype": "BYTES", "shape": [1], "data": [answer]},
                {"name": "scores", "datatype": "FP32", "shape": [1, SHAPE[2]], "data": [0] * SHAPE[2]},
                {"name": "report", "datatype": "BYTES", "shape": [1], "data": ["{}"]},
            ]
            body = json.dumps({"model_name": "medimageparse_3d", "model_version": "1", "outputs": outputs}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
