"""A collector of OpenTelemetry for tests: takes spans as tritonserver sends them, OTLP over HTTP in JSON."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Collector:
    """url: what a server is told; bodies: what it sent; is_broken: refuses everything."""

    def __init__(self, port):
        self.url, self.bodies, self.paths, self.is_broken = f"http://127.0.0.1:{port}", [], set(), False

    def take(self, path, body):
        self.paths.add(path)
        self.bodies.append(body)
        return 503 if self.is_broken else 200

    def resources(self):
        """What is said of the service itself: names and values."""
        parts = [
            part["resource"]["attributes"] for body in list(self.bodies) for part in json.loads(body)["resourceSpans"]
        ]
        return {each["key"]: next(iter(each["value"].values())) for part in parts for each in part}

    def traces(self):
        """The spans by trace, in the order of their ends."""
        found = {}
        for body in list(self.bodies):
            for resource in json.loads(body)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    for span in scope["spans"]:
                        found.setdefault(span["traceId"], []).append(span)
        return list(found.values())


@contextmanager
def collector():
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            status = found.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Collector(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
