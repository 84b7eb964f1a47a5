"""The probes of an orchestrator, over HTTP: a path is a question, 200 is yes and 503 no."""

import socket
import socketserver
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from medimageparse_serving.launch.launch_errors import ServeError

States = Callable[[], dict[str, tuple[bool, str]]]


class ProbeServer(ThreadingHTTPServer):
    """Listens from the first moment, so that a second start sees the port taken; answers once it serves."""

    def __init__(self, host: str, port: int, states: States) -> None:
        """states: path of a probe -> whether the answer is yes, and words."""
        self.states = states
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), ProbeHandler)
        except OSError as error:
            raise ServeError(f"port {port} cannot be used for the probes: {error.strerror}") from None

    def server_bind(self) -> None:
        """Without a look for this machine's name, which the base class asks the network for."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class ProbeHandler(BaseHTTPRequestHandler):
    server: ProbeServer
    timeout = 5

    def do_GET(self) -> None:
        yes, words = self.server.states().get(self.path, (False, "ask for /startup, /ready or /live"))
        self.send_response(200 if yes else 503)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(f"{words}\n".encode())

    def log_message(self, *_: object) -> None:
        """Says nothing: a probe comes every few seconds."""
