"""What Prometheus is told: counts, seconds and bytes by route, and counts by the name of a key. No prompt, no key."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import Response

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
OVER_QUOTA = ("rate", "at_once", "all_at_once")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ours: Any = {"namespace": "medimageparse_gateway", "registry": self.registry}
        route = ("route",)
        caller = ("caller",)
        self.requests = Counter("requests", "Answered requests", ("route", "code"), **ours)
        self.refusals = Counter("refusals", "Requests without a result", ("route", "reason"), **ours)
        self.seconds = Histogram("request_seconds", "From head to end of the answer", route, buckets=SECONDS, **ours)
        self.received = Counter("received_bytes", "Bytes of bodies", route, **ours)
        self.sent = Counter("sent_bytes", "Bytes of answers", route, **ours)
        self.under_way = Gauge("requests_under_way", "Requests that are not answered yet", **ours)
        self.held = Gauge("held_bytes", "Bytes of bodies that are being read or worked on", **ours)
        self.caller_requests = Counter("caller_requests", "Requests within a key's quota", caller, **ours)
        self.caller_refusals = Counter("caller_refusals", "Requests over a quota", ("caller", "reason"), **ours)
        self.caller_under_way = Gauge("caller_requests_under_way", "Its requests under way", caller, **ours)

    def begin_caller(self, name: str) -> None:
        """Its numbers begin at 0, so that a rate counts the first request too."""
        self.caller_requests.labels(name)
        self.caller_under_way.labels(name)
        for reason in OVER_QUOTA:
            self.caller_refusals.labels(name, reason)


async def metrics(request: Request) -> Response:
    """For Prometheus."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE)
