"""What Azure's clients send and look for in the headers of /score: types, ids of their own, gzip."""

import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medimageparse_gateway.errors import error_response
from medimageparse_gateway.request_ids import CLIENT_ID, ID

AZURE_ID = "x-ms-request-id"
MAX_ID = 100  # characters, as Azure's own server
SCORING = re.compile(r"(/medimageparse(_3d)?)?/(score|invocations)")
JSON_TYPE = re.compile(r"application/([^/;\s]+\+)?json", re.IGNORECASE)
ID_TOO_LONG = f"an id in {ID}, {CLIENT_ID} or {AZURE_ID} has over {MAX_ID} characters; send a shorter one"


def tidy(path: str) -> str:
    """A path without slashes too many: some clients append to a URL that ends with one."""
    return re.sub("/+", "/", path).rstrip("/") or "/"


def ids_of(headers: Mapping[str, str], request_id: str) -> dict[str, str]:
    """Azure's ids of an answer: the caller's as they are, which go nowhere else; else that of the request."""
    client = headers.get(CLIENT_ID)
    ids = {AZURE_ID: headers.get(AZURE_ID) or client or request_id}
    return ids | {CLIENT_ID: client} if client else ids


def is_json(content_type: str) -> bool:
    return JSON_TYPE.fullmatch(content_type.partition(";")[0].strip()) is not None


def takes_gzip(accept_encoding: str) -> bool:
    """Whether a request asks for gzip; without the header none is sent."""
    for entry in accept_encoding.lower().split(","):
        name, _, quality = entry.replace(" ", "").partition(";q=")
        if name in ("gzip", "x-gzip"):
            return re.fullmatch(r"0(\.0*)?", quality) is None
    return False


class AzureHeaders:
    """ASGI middleware around the doors: every answer of /score has its ids, whoever gives it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not SCORING.fullmatch(tidy(scope["path"])):
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope)
        is_too_long = any(len(sent.get(name, "")) > MAX_ID for name in (ID, CLIENT_ID, AZURE_ID))
        added = {"x-ms-run-function-failed": "False"} | ids_of({} if is_too_long else sent, scope["request_id"])

        async def send_with_ids(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in added.items():
                    headers.setdefault(name, value)
            await send(message)

        app = error_response(431, ID_TOO_LONG) if is_too_long else self.app
        await app(scope, receive, send_with_ids)
