"""The frames of HTTP/2, as far as pings need them."""

import contextlib
import socket
import threading
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, ACKNOWLEDGED = 4, 6, 1


def frame(kind: int, flags: int = 0, content: bytes = b"") -> bytes:
    return len(content).to_bytes(3, "big") + bytes((kind, flags, 0, 0, 0, 0)) + content


class Frames:
    """Takes a client's bytes as they come, and gives the frames that are whole: kind, flags, content."""

    def __init__(self) -> None:
        self.waiting, self.greeted = b"", False

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        self.waiting += data
        if not self.greeted and len(self.waiting) >= len(PREFACE):
            assert self.waiting.startswith(PREFACE)
            self.waiting, self.greeted = self.waiting[len(PREFACE) :], True
        while self.greeted and len(self.waiting) >= 9:
            end = 9 + int.from_bytes(self.waiting[:3], "big")
            if len(self.waiting) < end:
                return
            whole, self.waiting = self.waiting[:end], self.waiting[end:]
            yield whole[3], whole[4], whole[9:]


class PingCount:
    """Pings of clients so far, for threads that wait for them."""

    def __init__(self) -> None:
        self.n, self.changed = 0, threading.Condition()

    def add(self) -> None:
        with self.changed:
            self.n += 1
            self.changed.notify_all()

    def has_grown_by(self, n: int, patience_s: float) -> bool:
        with self.changed:
            wanted = self.n + n
            return self.changed.wait_for(lambda: self.n >= wanted, patience_s)


class Relay:
    """Stands between clients and a server, and counts the clients' pings; after `hold` it passes nothing on.

    connections: how often a client has called; hung_up: set when the server ends a connection first
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self.target = host, int(port)
        self.pings, self.connections = PingCount(), 0
        self.is_deaf, self.hung_up = False, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.open: list[socket.socket] = []

    def __enter__(self) -> "Relay":
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.listener.close()
        for connection in self.open:
            connection.close()

    def hold(self) -> None:
        self.is_deaf = True

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.connections += 1
                server = socket.create_connection(self.target)
                self.open += [client, server]
                threading.Thread(target=self.carry, args=(client, server, Frames()), daemon=True).start()
                threading.Thread(target=self.carry, args=(server, client, None), daemon=True).start()

    def carry(self, source: socket.socket, sink: socket.socket, frames: Frames | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                for kind, flags, _ in frames.feed(data) if frames else ():
                    if kind == PING and not flags & ACKNOWLEDGED:
                        self.pings.add()
                if not self.is_deaf:
                    sink.sendall(data)
        if frames is None:
            self.hung_up.set()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
