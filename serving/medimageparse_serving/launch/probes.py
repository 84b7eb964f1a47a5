"""The probes of an orchestrator, over HTTP: a path is a question, 200 is yes and 503 no."""

import contextlib
import socket
import socketserver
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from medimageparse_serving.launch import service_metrics
from medimageparse_serving.launch.launch_errors import ServeError

States = Callable[[], dict[str, tuple[bool, str]]]


MAX_CONNECTIONS, DEADLINE_S = 32, 5  # at a time; for a whole request, however slowly it comes


class ProbeServer(ThreadingHTTPServer):
    """Listens from the first moment, so that a second start sees the port taken; answers once it serves.

    It shares file descriptors and threads with the supervisor, so connections are few: the oldest makes room.
    """

    daemon_threads = True
    request_queue_size = 128  # a connection that finds the queue full comes back a second later

    def __init__(self, host: str, port: int, states: States, metrics: Callable[[], str]) -> None:
        """states: path of a probe -> whether the answer is yes, and words; metrics: what Prometheus is told."""
        self.states, self.metrics = states, metrics
        self.connections: dict[socket.socket, float] = {}  # -> when it must have ended
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), ProbeHandler)
        except OSError as error:
            raise ServeError(f"port {port} cannot be used for the probes: {error.strerror}") from None

    def server_bind(self) -> None:
        """Binds without asking the network for this machine's name, as the base class would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self.connections) >= MAX_CONNECTIONS:
            self._end(next(iter(self.connections)))
        self.connections[request] = time.monotonic() + DEADLINE_S
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Comes several times a second."""
        for connection, deadline in list(self.connections.items()):
            if deadline < time.monotonic():
                self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        """Its thread, which waits for it, then closes it."""
        self.connections.pop(connection, None)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        self.connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a connection broke, as it does when its time is over."""


class ProbeHandler(BaseHTTPRequestHandler):
    server: ProbeServer
    timeout = DEADLINE_S

    def do_GET(self) -> None:
        if self.path == service_metrics.PATH:
            self.answer(200, service_metrics.CONTENT_TYPE, self.server.metrics())
            return
        yes, words = self.server.states().get(self.path, (False, "ask for /startup, /ready, /live or /metrics"))
        self.answer(200 if yes else 503, "text/plain", f"{words}\n")

    def answer(self, status: int, content_type: str, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Says nothing: a probe comes every few seconds."""
