"""What can go wrong with a request, and the one form of every error body.

The body suits both kinds of caller: Azure's clients read `message` or `error.message`, ours read `error`.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Literal, TypeAlias

from starlette.responses import JSONResponse

Kind: TypeAlias = Literal["invalid_argument", "queue_full", "timeout", "cancelled", "unavailable", "internal"]
# kind of a TritonError -> HTTP. A failed step is 424, as on Azure: clients repeat a 5xx, and it would fail again
STATUS_OF_KIND: dict[Kind, int] = {
    "invalid_argument": 400,
    "queue_full": 429,
    "timeout": 408,
    "cancelled": 408,
    "unavailable": 503,
    "internal": 424,
}
RETRY_AFTER_S = {429: "1", 503: "5"}  # with these two only: azure-core repeats whatever has the header
FAULT = "the gateway failed; its log says where"


class HttpError(Exception):
    """Ends a request with a status and a sentence for the caller; `reason` is for the log and the metrics."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None, reason: str = "") -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers, self.reason = status, sentence, dict(headers or {}), reason


class TritonError(Exception):
    """The model's refusal or failure: its kind, and a sentence that may be told."""

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind, self.sentence = kind, sentence


def code_of(status: int) -> str:
    """The name of a status as error bodies write it: BadRequest, TooManyRequests."""
    return HTTPStatus(status).phrase.title().replace(" ", "").replace("-", "")


def error_body(status: int, sentence: str) -> dict[str, object]:
    return {"message": sentence, "error": {"code": code_of(status), "message": sentence}}


def error_response(status: int, sentence: str, headers: Mapping[str, str] | None = None, **more: str) -> JSONResponse:
    """more: members that callers of this address look for besides."""
    retry = {"Retry-After": RETRY_AFTER_S[status]} if status in RETRY_AFTER_S else {}
    return JSONResponse({**error_body(status, sentence), **more}, status, {**retry, **(headers or {})})


def response_of(error: HttpError | TritonError) -> JSONResponse:
    if isinstance(error, TritonError):
        return error_response(STATUS_OF_KIND[error.kind], error.sentence)
    return error_response(error.status, error.sentence, error.headers)
