"""An answer before the end of a body reaches its caller: closing a connection with unread bytes would be a reset."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_S = 30.0


class Linger:
    """ASGI middleware, the outermost: goes on reading for a while, and keeps nothing.

    Whoever waits for leave to send a body gets none, and whoever is told that the connection closes has been slow.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "expect" not in Headers(scope=scope):
            exchange = Exchange(receive, send)
            receive, send = exchange.receive, exchange.send
        await self.app(scope, receive, send)


class Exchange:
    """One request and its answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.is_read = self.is_closed = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.is_read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_closed = Headers(raw=message["headers"]).get("connection") == "close"
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not is_last or self.is_read or self.is_closed:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self.is_read:
                    await self.receive()
        await self._send({"type": "http.response.body"})
