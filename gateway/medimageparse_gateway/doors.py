"""Who may come in: keys as hashes, each within its quota."""

import hashlib
import hmac
import time
from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from medimageparse_gateway.errors import HttpError
from medimageparse_gateway.metrics import Metrics
from medimageparse_gateway.quotas import Clock, Places, Quota
from medimageparse_gateway.settings import Settings

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


class Doors:
    """ASGI middleware: refuses before anything of a body is read."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, clock: Clock = time.monotonic) -> None:
        self.app, self.metrics = app, metrics
        self.quotas = [Quota(key, clock) for key in settings.keys]
        for key in settings.keys:
            metrics.begin_caller(key.name)
        sentence = "the gateway has as many requests under way as it may; send this one again"
        self.everybody = Places(settings.requests_at_once, sentence, "all_at_once")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] == "OPTIONS" or is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        quota = self.find_quota(scope)
        with ExitStack() as places:
            if quota is None:
                places.enter_context(self.everybody.take())
            else:
                scope["caller"] = quota.key.name
                self.let_in(quota, places)
            await self.app(scope, receive, send)

    def let_in(self, quota: Quota, places: ExitStack) -> None:
        """Takes the key's place and counts its request. HttpError 429 where it is over its quota."""
        name, metrics = quota.key.name, self.metrics
        try:
            places.enter_context(quota.places.take())
            places.enter_context(self.everybody.take())
            quota.count()
        except HttpError as error:
            metrics.caller_refusals.labels(name, error.reason).inc()
            raise
        metrics.caller_requests.labels(name).inc()
        places.enter_context(metrics.caller_under_way.labels(name).track_inprogress())

    def find_quota(self, scope: Scope) -> Quota | None:
        """Of the key that the request has; None where none is needed. Every key is compared, in constant time."""
        headers = Headers(scope=scope)
        is_local = (scope.get("client") or ("",))[0] in LOOPBACK and not any(name in headers for name in FORWARDED)
        if not self.quotas or (scope["path"] == "/metrics" and is_local):
            return None
        sent = headers.getlist("authorization")
        scheme, _, token = (sent[0] if len(sent) == 1 else "").partition(" ")
        digest = hashlib.sha256(token.strip().encode()).hexdigest()
        found = [quota for quota in self.quotas if hmac.compare_digest(quota.key.sha256, digest)]
        if scheme.lower() != "bearer" or not found:
            raise HttpError(401, NO_KEY, {"WWW-Authenticate": "Bearer"}, "key")
        return found[0]


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIX)
