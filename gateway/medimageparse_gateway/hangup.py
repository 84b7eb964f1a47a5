"""Work for a caller who may leave: no ASGI server cancels a handler by itself."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

Answer = TypeVar("Answer")


async def run_unless_hung_up(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """The answer of `work`; cancels it and raises ClientDisconnect when the caller hangs up first.

    The body of the request must have been read to its end.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_wait_for_hang_up(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            if not task.done():  # awaited twice, an error would lose its place
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task


async def _wait_for_hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
