"""How much of a body is taken, how much of all bodies together, and how long one may take to come."""

import asyncio
import time

from prometheus_client import Gauge
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medimageparse_gateway.errors import HttpError
from medimageparse_gateway.quotas import too_many
from medimageparse_gateway.settings import Settings

CLOSE = {"Connection": "close"}


class Bodies:
    """ASGI middleware: bytes are counted before they are kept, until the request has ended."""

    def __init__(self, app: ASGIApp, settings: Settings, gauge: Gauge) -> None:
        self.app, self.settings, self.gauge = app, settings, gauge
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = Body(self, scope, receive)
        try:
            body.check_head()
            await self.app(scope, body.receive, send)
        finally:
            self.hold(-body.held)

    def hold(self, n_bytes: int) -> None:
        self.held += n_bytes
        self.gauge.set(self.held)


class Body:
    """The body of one request."""

    def __init__(self, bodies: Bodies, scope: Scope, receive: Receive) -> None:
        self.bodies, self.scope, self._receive = bodies, scope, receive
        self.settings = bodies.settings
        self.came = self.held = 0
        self.is_whole = False
        self.end_s = time.monotonic() + self.settings.body_timeout_s

    def check_head(self) -> None:
        """Refuses by the head alone what would be refused later."""
        headers = Headers(scope=self.scope)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise HttpError(415, "the body is compressed; send it without Content-Encoding", reason="encoding")
        length = headers.get("content-length")  # the server has checked that it is a number
        if length is not None:
            self.take(int(length))

    async def receive(self) -> Message:
        if self.is_whole:
            return await self._receive()  # now only a hang-up can come
        wait_s = min(self.settings.pause_timeout_s, self.end_s - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), wait_s)
        except TimeoutError:
            raise HttpError(
                408, "the body came too slowly; send it again", {"Connection": "close"}, "slow_body"
            ) from None
        self.came += len(message.get("body", b""))
        self.is_whole = not message.get("more_body", False)
        self.take(self.came - self.held)
        return message

    def take(self, n_bytes: int) -> None:
        """Counts bytes that come now, or will; HttpError where there is no room."""
        limit, held = self.settings.max_body_bytes, self.bodies.held
        if self.held + n_bytes > limit:
            raise HttpError(413, f"the body is over {limit} bytes, the most that is taken", reason="too_large")
        if n_bytes > 0:
            if held + n_bytes > self.settings.max_held_bytes:
                raise too_many("held_bytes", "other requests fill the gateway's memory; try again later", 1)
            self.held += n_bytes
            self.bodies.hold(n_bytes)
