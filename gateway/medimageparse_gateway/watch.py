"""Around every request: its log line, its counts, and what becomes of an error that nobody expected."""

import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medimageparse_gateway.errors import FAULT, HttpError, error_response, response_of
from medimageparse_gateway.log import ACCESS, LOG, place_of
from medimageparse_gateway.metrics import Metrics

HUNG_UP = 499  # in the log, as nginx writes it
# why there was no result, where the doors have not said it more precisely
REASONS = {
    400: "bad_request", 401: "key", 404: "path", 405: "method", 406: "accept", 408: "time", 413: "too_large",
    415: "type", 424: "step_failed", 429: "busy", HUNG_UP: "hung_up", 500: "fault", 503: "unavailable",
}  # fmt: skip


class Watch:
    """ASGI middleware, the outermost of ours."""

    def __init__(self, app: ASGIApp, metrics: Metrics, route_of: Callable[[Scope], str]) -> None:
        self.app, self.metrics, self.route_of = app, metrics, route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        with self.metrics.under_way.track_inprogress():
            try:
                await self.app(scope, exchange.receive, exchange.send)
            except ClientDisconnect:
                exchange.status = HUNG_UP
            except HttpError as error:
                scope["reason"] = error.reason
                await response_of(error)(scope, receive, exchange.send)
            except Exception as error:
                LOG.error({"message": FAULT, "request_id": scope["request_id"], "error": place_of(error)})
                if exchange.status is None:
                    await error_response(500, FAULT)(scope, receive, exchange.send)
            finally:
                self.tell(exchange)

    def tell(self, exchange: "Exchange") -> None:
        """The log line and the counts of a request that has ended."""
        scope, metrics, status = exchange.scope, self.metrics, exchange.status or HUNG_UP
        route, seconds = self.route_of(scope), time.monotonic() - exchange.began_s
        metrics.requests.labels(route, status).inc()
        metrics.seconds.labels(route).observe(seconds)
        metrics.received.labels(route).inc(exchange.received)
        metrics.sent.labels(route).inc(exchange.sent)
        reason = scope.get("reason") or (REASONS.get(status, "other") if status >= 400 else "")
        if reason:
            metrics.refusals.labels(route, reason).inc()
        line = {"request_id": scope["request_id"], "caller": scope.get("caller", ""), "route": route}
        line |= {"method": method_of(scope), "status": status}
        line |= {"seconds": round(seconds, 3), "bytes_in": exchange.received, "bytes_out": exchange.sent}
        ACCESS.info(line | ({"reason": reason} if reason else {}))


class Exchange:
    """What goes to and fro in one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.began_s = time.monotonic()
        self.received = self.sent = 0
        self.status: int | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        self.sent += len(message.get("body", b""))
        await self._send(message)


def method_of(scope: Scope) -> str:
    """A method that there is; others are the caller's own words."""
    return scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE") else "other"
