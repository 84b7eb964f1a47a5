"""The id of each request: the caller's or a made one. It goes to Triton, into the log and back in the answer."""

import uuid
from collections.abc import Mapping

from medimageparse_contract.request_ids import valid_or_none
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ID, CLIENT_ID = "x-request-id", "x-ms-client-request-id"  # the second is what Azure's clients write


def id_of(headers: Mapping[str, str]) -> str:
    """The first that is one; in place of words of another form, which may name a patient, a new one."""
    sent = (valid_or_none(headers.get(name, "")) for name in (ID, CLIENT_ID))
    return next(filter(None, sent), None) or str(uuid.uuid4())


class RequestIds:
    """ASGI middleware around all others: `request_id` of the scope, and a header of every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["request_id"] = id_of(Headers(scope=scope))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[ID] = scope["request_id"]
            await send(message)

        await self.app(scope, receive, send_with_id)
