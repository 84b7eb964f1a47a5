"""Who may come in: keys as hashes, so many requests a minute and at once."""

import hashlib
import hmac
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from medimageparse_gateway.errors import HttpError
from medimageparse_gateway.settings import Key, Settings

OPEN_PATHS = frozenset(
    (
        "/",
        "/ready",
        "/docs",
        "/openapi.json",
        "/swagger.json",
        "/ping",
        "/health",
        "/version",
        "/favicon.ico",
        "/viewer",
    )
)
OPEN_PREFIX = "/viewer/"
LOOPBACK = ("127.0.0.1", "::1")
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")  # a proxy on this machine speaks for another
NO_KEY = "key_auth_access_denied: the API key is missing or not known here; send Authorization: Bearer KEY"


class Caller:
    """One key, and what its requests have used up."""

    def __init__(self, key: Key) -> None:
        self.key, self.under_way = key, 0
        self.left, self.counted_s = float(key.requests_per_minute), time.monotonic()

    def count(self) -> None:
        """Counts a request against the rate; HttpError where there were too many."""
        per_minute, now_s = self.key.requests_per_minute, time.monotonic()
        self.left = min(self.left + (now_s - self.counted_s) * per_minute / 60, per_minute)
        self.counted_s = now_s
        if self.left < 1:
            wait_s = math.ceil((1 - self.left) * 60 / per_minute)
            raise too_many("rate", f"this key may send {per_minute} requests a minute; try again later", wait_s)
        self.left -= 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While a request is under way; HttpError where there are too many."""
        if self.under_way >= self.key.requests_at_once:
            raise too_many("at_once", f"{self.under_way} requests are under way; wait until one has ended")
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1


def too_many(reason: str, sentence: str, wait_s: int = 1) -> HttpError:
    return HttpError(429, sentence, {"Retry-After": str(wait_s)}, reason)


class Doors:
    """ASGI middleware: refuses before anything of a body is read."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.callers = [Caller(key) for key in settings.keys]
        self.everybody = Caller(Key("everybody", "0" * 64, settings.requests_at_once))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] == "OPTIONS" or is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        caller = self.find_caller(scope)
        with self.everybody.at_work(), caller.at_work() if caller else nullcontext():
            if caller:
                scope["caller"] = caller.key.name
                caller.count()
            await self.app(scope, receive, send)

    def find_caller(self, scope: Scope) -> Caller | None:
        """Whose key the request has; None where none is needed. Every key is compared, in constant time."""
        headers = Headers(scope=scope)
        is_local = (scope.get("client") or ("",))[0] in LOOPBACK and not any(name in headers for name in FORWARDED)
        if not self.callers or (scope["path"] == "/metrics" and is_local):
            return None
        sent = headers.getlist("authorization")
        scheme, _, token = (sent[0] if len(sent) == 1 else "").partition(" ")
        digest = hashlib.sha256(token.strip().encode()).hexdigest()
        found = [caller for caller in self.callers if hmac.compare_digest(caller.key.sha256, digest)]
        if scheme.lower() != "bearer" or not found:
            raise HttpError(401, NO_KEY, {"WWW-Authenticate": "Bearer"}, "key")
        return found[0]


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIX)
