"""Connections to people who take their time, or more than their share: the time-outs that uvicorn lacks.

A TLS hello, a head of a request and a body that is not read to its end each have their time; an answer must be taken
with some speed; there are so many connections and not more. Bodies that are read have theirs in bodies.py.
"""

import asyncio
import json
import resource
import signal
import socket
import time
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from medimageparse_gateway.certificate import Certificate
from medimageparse_gateway.errors import error_body
from medimageparse_gateway.settings import Settings

BACKLOG = 128  # asyncio accepts so many connections before it asks who they are
SPARE_DESCRIPTORS = 2 * BACKLOG + 64  # those that come and those that go; listener, gRPC, log, the viewer's files
LOOK_EVERY = 10  # ticks of uvicorn, which are a tenth of a second
# an idle connection is kept for so long: longer than Retry-After tells callers to wait, who come back on it
KEEP_ALIVE_S = 15
MAX_HEAD_BYTES = 2**16  # of a request's line and headers
FREE_PIECES, CRUMB_BYTES = 10_000, 1024  # so many pieces of a body may be small; further ones have so many bytes
SLOWEST_BYTES = 2**20  # of an answer, to be taken in a pause's time


def server_of(app: Any, settings: Settings) -> "WatchedServer":
    config = uvicorn.Config(
        app,
        http=WatchedProtocol,
        ws="none",
        log_config=None,  # log.py's
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who calls is told by keys, not by what a header says
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(settings.stop_timeout_s),
    )
    return WatchedServer(config, settings)


class CountedConnection(h11.Connection):
    """Ends a body that comes in crumbs: each is an event, and a few megabytes of them would keep the gateway busy."""

    n_pieces = n_bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.n_pieces = self.n_bytes = 0
        elif isinstance(event, h11.Data):
            self.n_pieces, self.n_bytes = self.n_pieces + 1, self.n_bytes + len(event.data)
            if self.n_pieces > FREE_PIECES + self.n_bytes // CRUMB_BYTES:
                raise h11.RemoteProtocolError("the chunks are too small")
        return event


class WatchedProtocol(H11Protocol):
    """A connection that is looked after once a second."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = CountedConnection(h11.SERVER, MAX_HEAD_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.idle_since_s = self.taken_since_s = time.monotonic()
        self.left_bytes = 0

    def on_response_complete(self) -> None:
        self.idle_since_s = time.monotonic()
        super().on_response_complete()

    def look(self, settings: Settings) -> None:
        """Ends the connection if there is no whole request on it for too long, or nobody takes the answer."""
        now_s, unsent_bytes = time.monotonic(), self.transport.get_write_buffer_size()
        if unsent_bytes > self.left_bytes or unsent_bytes <= max(self.left_bytes - SLOWEST_BYTES, 0):
            self.taken_since_s, self.left_bytes = now_s, unsent_bytes
        is_idle = not unsent_bytes and (self.cycle is None or self.cycle.response_complete)
        is_stuck = unsent_bytes and now_s - self.taken_since_s > settings.pause_timeout_s
        if is_stuck or is_idle and now_s - self.idle_since_s > settings.header_timeout_s:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP, in the form of all our errors, and closes."""
        body = json.dumps(error_body(400, "this is not a valid HTTP request")).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        try:
            events = (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage())
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        except h11.LocalProtocolError:  # there is an answer already
            pass
        if self.cycle is not None and not self.cycle.response_complete:
            # a body went wrong half-way: its request has been answered, and is told that nobody listens any more
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


class WatchedServer(uvicorn.Server):
    """uvicorn's server, with a time for the TLS hello, a limit of connections, and an eye on them."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self.settings = settings
        self.certificate = Certificate(settings) if settings.tls_certificate else None
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most = max(min(settings.max_connections, descriptors - SPARE_DESCRIPTORS), 1)
        self.hellos: dict[asyncio.Protocol, float] = {}  # connections without their TLS hello -> since when

    def handle_exit(self, sig: int, frame: object) -> None:
        """What is under way is answered; a second Ctrl-C ends at once. Not passed on as uvicorn does: exit status 0."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        tls = self.certificate.context if self.certificate else None
        hello_s = self.settings.tls_timeout_s if tls else None
        loop = asyncio.get_running_loop()
        for listener in sockets or []:
            # asyncio does so only where a socket names TCP as its protocol; else all answers but a connection's first
            # wait 40 ms for the caller to acknowledge their heads
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.servers = [
            await loop.create_server(
                self.protocol, sock=listener, backlog=BACKLOG, ssl=tls, ssl_handshake_timeout=hello_s
            )
            for listener in sockets or []
        ]
        self.started = True

    def protocol(self) -> asyncio.Protocol:
        if len(self.server_state.connections) + self.n_hellos() >= self.most:
            return Closed()
        protocol = WatchedProtocol(self.config, self.server_state, self.lifespan.state)
        if self.certificate:
            self.hellos[protocol] = time.monotonic()
        return protocol

    def n_hellos(self) -> int:
        """How many connections may still be at their TLS hello; nobody tells of those that failed."""
        oldest_s = time.monotonic() - self.settings.tls_timeout_s
        waiting = self.hellos.keys() - self.server_state.connections
        self.hellos = {each: since_s for each, since_s in self.hellos.items() if since_s > oldest_s and each in waiting}
        return len(self.hellos)

    async def on_tick(self, counter: int) -> bool:
        if counter % LOOK_EVERY == 0:
            for connection in list(self.server_state.connections):
                connection.look(self.settings)  # type: ignore[union-attr]
            if self.certificate:
                self.certificate.look()
        return await super().on_tick(counter)


class Closed(asyncio.Protocol):
    """For whoever comes when all connections are taken."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.abort()  # type: ignore[attr-defined]
