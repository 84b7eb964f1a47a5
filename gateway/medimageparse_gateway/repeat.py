"""Asks tritonserver again while it restarts: a request changes nothing there, and its answer is always the same."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from medimageparse_client.retry import pauses

from medimageparse_gateway.errors import TritonError

Answer = TypeVar("Answer")


class Patience:
    """What one request has left.

    left_s: seconds for the next try, of a time-out for all of them
    retry_for_s: seconds of all pauses together; 0 never asks again
    """

    def __init__(self, timeout_s: float, retry_for_s: float) -> None:
        self.left_s, self.retry_for_s, self._waited_s = timeout_s, retry_for_s, 0.0
        self._pauses, self._deadline = pauses(), asyncio.get_running_loop().time() + timeout_s

    async def after(self, error: TritonError) -> None:
        """Waits until the next try; raises the error where there is to be none.

        Only a server that is away is asked again: a full queue is told at once, so that callers come more seldom.
        """
        pause_s = next(self._pauses)
        self._waited_s += pause_s
        self.left_s = self._deadline - asyncio.get_running_loop().time() - pause_s
        if error.kind != "unavailable" or self._waited_s > self.retry_for_s or self.left_s <= 0:
            raise error
        await asyncio.sleep(pause_s)


async def repeated(ask: Callable[[float], Awaitable[Answer]], timeout_s: float, retry_for_s: float) -> Answer:
    """The answer of `ask`, which gets the seconds that are left. Raises the last TritonError."""
    patience = Patience(timeout_s, retry_for_s)
    while True:
        try:
            return await ask(patience.left_s)
        except TritonError as error:
            await patience.after(error)
