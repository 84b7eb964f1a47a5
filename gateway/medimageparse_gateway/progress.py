"""Server-sent events of a request: slices done (3D), then the result or the error.

sse-starlette would do the framing, but it ends streams at SIGTERM, when what is under way is to end by itself.
"""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from medimageparse_client.wire import Value
from medimageparse_contract.models import STREAMS
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from medimageparse_gateway.answers import EVENT_STREAM, Answer
from medimageparse_gateway.errors import STATUS_OF_KIND, HttpError, TritonError
from medimageparse_gateway.forms import Form
from medimageparse_gateway.triton import SENTENCES, Arrays, Triton

KEEP_ALIVE_S, KEEP_ALIVE = 10.0, b": still at work\n\n"


class EventStream(StreamingResponse):
    """The events of one request. When the caller hangs up they are closed, and that ends the model's work.

    labels: the form that the label map has in the result
    """

    def __init__(self, request: Request, model: str, inputs: Mapping[str, Value], form: Form, labels: Answer) -> None:
        self.events = keeping_alive(events(request, model, inputs, form, labels), KEEP_ALIVE_S)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nginx would hold events back
        super().__init__(self.events, media_type=EVENT_STREAM, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.events):
            await super().__call__(scope, receive, send)


async def events(
    request: Request, model: str, inputs: Mapping[str, Value], form: Form, labels: Answer
) -> AsyncGenerator[bytes, None]:
    triton, timeout_s = request.app.state.triton, request.app.state.settings.timeout_s
    request_id: str = request.scope["request_id"]
    outputs = tuple(dict.fromkeys((*labels.outputs, "report")))
    arrays: Arrays = {}
    try:
        async with aclosing(responses(triton, model, inputs, outputs, timeout_s, request_id)) as answers:
            async for arrays in answers:
                yield await asyncio.to_thread(event_of, arrays, form, labels)
        if not arrays.keys() >= set(outputs):  # it ended without a result
            raise TritonError("internal", SENTENCES["internal"])
    except TritonError as error:
        request.scope["reason"] = error.kind
        yield event("error", {"code": STATUS_OF_KIND[error.kind], "message": error.sentence})
    except HttpError as error:
        request.scope["reason"] = error.reason
        yield event("error", {"code": error.status, "message": error.sentence})


async def responses(
    triton: Triton,
    model: str,
    inputs: Mapping[str, Value],
    outputs: tuple[str, ...],
    timeout_s: float,
    request_id: str,
) -> AsyncGenerator[Arrays, None]:
    """Those of the model's decoupled twin; a server without it gives the result alone."""
    twin = STREAMS.get(model)
    if twin is None or not await triton.has(twin):
        yield await triton.infer(model, inputs, outputs, timeout_s=timeout_s, request_id=request_id)
        return
    told = ("progress", *outputs)
    async with aclosing(triton.stream(twin, inputs, told, timeout_s=timeout_s, request_id=request_id)) as answers:
        async for arrays in answers:
            yield arrays


def event_of(arrays: Arrays, form: Form, labels: Answer) -> bytes:
    """Raises TritonError for a response that no model of ours gives."""
    try:
        if "progress" in arrays:
            return event("progress", json.loads(arrays["progress"].item()))
        file = base64.b64encode(labels.made_of(form, arrays)).decode()
        return event("result", {"report": json.loads(arrays["report"].item()), "labels": file})
    except (KeyError, TypeError, ValueError):
        raise TritonError("internal", SENTENCES["internal"]) from None


def event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def keeping_alive(source: AsyncGenerator[bytes, None], every_s: float) -> AsyncGenerator[bytes, None]:
    """What `source` yields, and a comment whenever it is silent for so long: proxies end silent connections."""
    async with aclosing(source):
        coming: asyncio.Future[bytes] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(source))
                await asyncio.wait((coming,), timeout=every_s)
                if not coming.done():
                    yield KEEP_ALIVE
                    continue
                try:
                    piece = coming.result()
                except StopAsyncIteration:
                    return
                coming = None
                yield piece
        finally:
            if coming is not None and not coming.done():
                coming.cancel()
                await asyncio.wait((coming,))
