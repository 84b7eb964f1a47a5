"""Traces of requests by OpenTelemetry: tritonserver's flags, and which of them are refused."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from medimageparse_contract.version import VERSION

from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.step_environment import TRACED

PATH = "/v1/traces"  # of OTLP over HTTP
SERVICE = ("service.name=medimageparse", f"service.version={VERSION}")
# A file of traces lets whoever has the admin key write tensors into it later: so it is OpenTelemetry or nothing, which
# knows no tensors. A word that begins like this is one of Triton's flags for traces, however it is cut short.
TRACE_FLAG = re.compile(r"--tr", re.IGNORECASE)
HARMLESS = re.compile(
    r"--trace-config=(mode=opentelemetry|level=(OFF|TIMESTAMPS)|rate=\d+|count=-?\d+|opentelemetry,\w+=\S+)"
)


def trace_flags(url: str, rate: int) -> list[str]:
    """For tritonserver: each rate-th request is traced, and its spans are sent to url. Without a url: none.

    rate 0 traces those alone that bring a trace of their own, as any of them may. ServeError for what cannot be.
    """
    if not url:
        return []
    if rate < 0:
        raise ServeError("--trace-rate is 1 for each request, N for each N-th, 0 for those that bring a trace along")
    settings = ["mode=opentelemetry", "level=TIMESTAMPS", f"rate={rate}", f"opentelemetry,url={checked_url(url)}"]
    settings += [f"opentelemetry,resource={each}" for each in SERVICE]
    return [f"--trace-config={setting}" for setting in settings]


def checked_url(url: str) -> str:
    """With the usual path where it has none."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and "@" not in url
    except ValueError:
        is_good = False
    if not is_good or re.search(r"[\s,]", url):
        raise ServeError(
            "--trace-url is http://HOST:4318 of a collector, without a password: OTEL_EXPORTER_OTLP_HEADERS takes one"
        )
    return url.rstrip("/") + PATH if parts.path in ("", "/") else url


def checked_flags(flags: Iterable[str]) -> tuple[str, ...]:
    """The same flags; ServeError where one of them could write voxels and prompts into a trace."""
    flags = tuple(flags)
    if any(TRACE_FLAG.match(flag) and not HARMLESS.fullmatch(flag) for flag in flags):
        raise ServeError(
            "traces go to OpenTelemetry only, by --trace-url and --trace-rate, or --trace-config=SETTING: Triton's "
            "level TENSORS and its trace file would hold voxels and prompts"
        )
    return flags


def environment(flags: Iterable[str]) -> dict[str, str]:
    """What the python steps learn of it."""
    return {TRACED: "1"} if any(TRACE_FLAG.match(flag) for flag in flags) else {}
