"""The gateway beside tritonserver: a process that is started after the server's warm-up, looked after, and ended."""

import contextlib
import importlib.util
import subprocess
import sys
import threading
import time
from pathlib import Path

from medimageparse_serving.launch.child import as_child
from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.server_log import say

PACKAGE = "medimageparse_gateway"
START_S, STOP_S = 60, 75  # the gateway itself waits 60 s for requests under way
PAUSE_S = 5  # between two starts of one that ends


class GatewayProcess:
    """`start`, then `look_after` as often as one likes, at last `stop`. Its own words go to this program's log."""

    def __init__(
        self, triton: str, port: int, host: str = "", config: Path | None = None, access_log: str | None = None
    ) -> None:
        """triton: "host:port" of gRPC; empty if the configuration names it. host, access_log: likewise."""
        if importlib.util.find_spec(PACKAGE) is None:
            raise ServeError("the gateway is not installed: pip install ./client ./gateway, or start with GATEWAY=0")
        options = {"--triton": triton, "--host": host, "--config": str(config) if config else ""}
        options["--access-log"] = access_log or ""
        given = [f"{name}={value}" for name, value in options.items() if value]
        self.command = [sys.executable, "-m", PACKAGE, f"--port={port}", *given]
        self.process: subprocess.Popen[str] | None = None
        self.started = 0.0
        self.url = ""

    def start(self) -> None:
        """Until it listens; ServeError if it does not."""
        self._launch()
        assert self.process is not None
        assert self.process.stdout is not None
        patience = threading.Timer(START_S, self.process.kill)
        patience.start()
        first_line = self.process.stdout.readline()
        patience.cancel()
        if not first_line.startswith("ready: "):
            self.stop()
            raise ServeError("the gateway does not start; it says why above")
        self.url = first_line.removeprefix("ready: ").strip()

    def _launch(self) -> None:
        self.process = subprocess.Popen(
            as_child(self.command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: it is then asked to stop
        )
        self.started = time.monotonic()

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def look_after(self) -> None:
        """Starts it again if it ended, and does not wait for it."""
        if not self.is_running() and time.monotonic() > self.started + PAUSE_S:
            say("the gateway ended; it is started again")
            self.stop()
            with contextlib.suppress(OSError):  # no memory or no descriptors just now: next time
                self._launch()

    def stop(self) -> None:
        """Requests under way are finished first."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
