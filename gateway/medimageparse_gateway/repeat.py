"""Asks tritonserver again while it restarts: a request changes nothing there, and its answer is always the same."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from medimageparse_client.retry import pauses

from medimageparse_gateway.errors import TritonError

Answer = TypeVar("Answer")


async def repeated(ask: Callable[[float], Awaitable[Answer]], timeout_s: float, retry_for_s: float) -> Answer:
    """The answer of `ask`, which gets the seconds that are left of `timeout_s`, all tries together.

    retry_for_s: seconds of all pauses together; 0 never asks again. Raises the last TritonError. Only a server that is
    away is asked again: a full queue is told at once, so that callers come more seldom.
    """
    loop = asyncio.get_running_loop()
    deadline, left_s, waited_s, pauses_s = loop.time() + timeout_s, timeout_s, 0.0, pauses()
    while True:
        try:
            return await ask(left_s)
        except TritonError as error:
            pause_s = next(pauses_s)
            waited_s += pause_s
            left_s = deadline - loop.time() - pause_s
            if error.kind != "unavailable" or waited_s > retry_for_s or left_s <= 0:
                raise
        await asyncio.sleep(pause_s)
