"""Triton's model control: whoever has the admin key unloads and loads models while the server runs."""

import http.client
import json
import time
import urllib.request
from collections.abc import Collection

from medimageparse_serving.launch.addresses import open_local

POLL_S = 0.05


class ModelControl:
    """That of one server. OSError or ValueError where it does not answer, or refuses (urllib's HTTPError)."""

    def __init__(self, http_url: str, admin_headers: dict[str, str]) -> None:
        self.http_url, self.admin_headers = http_url, admin_headers

    def unload(self, model: str, timeout_s: float) -> None:
        """Takes no new requests for it from now on; those under way are finished."""
        self._ask(f"models/{model}/unload", timeout_s)

    def load(self, model: str, timeout_s: float) -> None:
        """Returns once it is ready, and the ensembles that it belongs to."""
        self._ask(f"models/{model}/load", timeout_s)

    def are_unloaded(self, models: Collection[str], timeout_s: float) -> bool:
        """Whether no request is under way in them any more, in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            index = self._ask("index", timeout_s)
            if not any(model.get("name") in models and model.get("state") == "UNLOADING" for model in index):
                return True
            time.sleep(POLL_S)
        return False

    def _ask(self, path: str, timeout_s: float) -> list[dict[str, str]]:
        url = f"http://{self.http_url}/v2/repository/{path}"
        request = urllib.request.Request(url, b"{}", self.admin_headers)
        try:
            with open_local(request, timeout=timeout_s) as answer:
                found: list[dict[str, str]] = json.loads(answer.read() or b"[]")
        except http.client.HTTPException as error:
            raise ConnectionError("the server ended before its answer did") from error
        return found
