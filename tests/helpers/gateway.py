"""A gateway that runs for a test, before models that stand in for Triton's."""

import asyncio
import json
import os
import socket
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import httpx2
import numpy as np
import uvicorn.server
from helpers.fake_server import FakeTriton
from medimageparse_gateway.app import build_app
from medimageparse_gateway.connections import server_of
from medimageparse_gateway.settings import Settings

PATIENCE_S = 60  # for a machine that does much else; nothing is asserted about times
# uvicorn looks ten times a second whether it shall end; here a hundred times
uvicorn.server.asyncio = SimpleNamespace(**vars(asyncio) | {"sleep": lambda seconds: asyncio.sleep(seconds / 10)})


class FakeModels(FakeTriton):
    """Stands in for the gateway's Triton; answers as FakeTriton does.

    error: what every request raises
    is_held: requests wait until the test calls `release`; `began` and `cancelled` are set by the next one
    slices: the decoupled twin tells so many, one by one
    """

    def __init__(self, error=None, is_held=False, slices=None, models=FakeTriton.models):
        self.error, self.is_held, self.slices, self.models = error, is_held, slices, models
        self.requests, self.images, self.timeouts_s, self.ids = [], [], [], []
        self.began, self.cancelled, self.released = threading.Event(), threading.Event(), asyncio.Event()
        self.loop = None

    async def infer(self, model, inputs, outputs, *, timeout_s, request_id=""):
        self.loop = asyncio.get_running_loop()
        self.began.set()
        self.timeouts_s.append(timeout_s)
        self.ids.append(request_id)
        texts = {name: value for name, value in inputs.items() if name != "image"}
        self.requests.append({"model": model, "outputs": list(outputs), **texts})
        await self.wait()
        if self.error:
            raise self.error
        prompts = inputs["text"].decode().split(" & ") if "text" in inputs else []
        image = bytes(inputs["image"])
        answer = self.answer_volume(image, prompts) if "3d" in model else self.answer_image(image, prompts)
        return {name: answer.as_numpy(name) for name in outputs}

    async def wait(self):
        if self.is_held:
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    def release(self):
        self.is_held = False
        self.loop.call_soon_threadsafe(self.released.set)

    async def stream(self, model, inputs, outputs, *, timeout_s, request_id=""):
        for n_done in range(1, self.slices + 1):
            progress = {"slices_done": n_done, "slices": self.slices, "prompts_found": []}
            yield {"progress": np.array([json.dumps(progress).encode()], np.object_)}
        wanted = [name for name in outputs if name != "progress"]
        yield await self.infer(model, inputs, wanted, timeout_s=timeout_s, request_id=request_id)

    async def has(self, model):
        return model in self.models or (self.slices is not None and model == "medimageparse_3d_stream")

    async def ready(self):
        return bool(self.models)

    async def models_ready(self):
        return {model: model in self.models for model in FakeTriton.models}

    async def close(self):
        pass


class RunningGateway:
    """url: of its root; http: a client of it; process: where its threads and memory are, this one."""

    def __init__(self, url, server):
        self.url, self.server = url, server
        self.port = int(url.rpartition(":")[2])
        self.http = httpx2.Client(base_url=url, timeout=PATIENCE_S, trust_env=False)
        self.app = server.config.app

    def get(self, path):
        """By a connection of its own."""
        return httpx2.get(self.url + path, timeout=PATIENCE_S, trust_env=False)

    def connect(self):
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)


@contextmanager
def running_gateway(models=None, clock=time.monotonic, **settings):
    """A gateway in a thread of this process, on a free port. clock: of the quotas."""
    settings = Settings(**settings)
    server = server_of(build_app(settings, models or FakeModels(), clock), settings)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    gateway = RunningGateway(f"http://127.0.0.1:{listener.getsockname()[1]}", server)
    try:
        yield gateway
    finally:
        gateway.http.close()
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
        assert not thread.is_alive()


def memory_bytes():
    """Of this process, as the kernel counts it."""
    with open(f"/proc/{os.getpid()}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def drip(connection, piece):
    """Sends a little, again and again, until the other side closes; what it may say first is not looked at."""
    connection.settimeout(0.01)
    while True:
        try:
            connection.sendall(piece)
            if not connection.recv(2**16):
                return
        except TimeoutError:
            continue
        except ConnectionError:
            return
