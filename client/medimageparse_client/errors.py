"""The errors a caller can meet, and the one place where the transport's errors become ours.

MedImageParseError
 ├─ ServerUnavailable      not reachable, or the model is not loaded
 │   ├─ ServerBusy         its queue is full; later there may be room
 │   └─ AccessDenied       no key or one that is not known there, or a certificate that is not trusted; it stays so
 ├─ RequestTimeout         no answer within timeout_s
 ├─ InvalidRequest         refused, here or by the server; the message says what to send instead
 │   ├─ InvalidVolume      the volume cannot be read or sent; found out before anything was sent
 │   └─ InvalidImage       the same for an image
 ├─ UnknownPrompt          a result is asked for a prompt that was not sent; a KeyError too
 └─ ServerError            anything else, with the server's words
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from medimageparse_contract.sentences import STEP_DIED, TOOK_TOO_LONG
from tritonclient.utils import InferenceServerException


class MedImageParseError(Exception):
    """Root of all errors of this package.

    request_id: of the request that was sent, which the server's log names; "" where none was
    """

    request_id = ""
    _tells_request = False  # whether the message names it: somebody will look for it in that log

    @property
    def sentence(self) -> str:
        """The message without the id."""
        return Exception.__str__(self)

    def __str__(self) -> str:
        is_named = self._tells_request and self.request_id
        return f"{self.sentence} (request {self.request_id})" if is_named else self.sentence


class ServerUnavailable(MedImageParseError):
    """The server cannot be reached, is overloaded, or has not loaded the model."""


class ServerBusy(ServerUnavailable):
    """The server's queue is full."""


class AccessDenied(ServerUnavailable):
    """The server, or a proxy before it, does not know the caller, or shows a certificate that is not trusted here."""


class RequestTimeout(MedImageParseError):
    """The server did not answer in time."""

    _tells_request = True


class WaitedTooLong(RequestTimeout):
    """The server did not begin with the request in time; with fewer at a time it may."""


class InvalidRequest(MedImageParseError):
    """The request was refused; the message says what to send instead."""


class InvalidVolume(InvalidRequest):
    """The volume cannot be read or sent; nothing was sent."""


class InvalidImage(InvalidRequest):
    """The image cannot be read or sent; nothing was sent."""


class UnknownPrompt(MedImageParseError, KeyError):
    """The result has no such prompt; the message lists those it has."""


class ServerError(MedImageParseError):
    """The server failed; the message is its own."""

    _tells_request = True


class OddAnswer(ServerError):
    """The server's answer is not one of MedImageParse; it is the same when asked again."""


# gRPC status or HTTP status -> error; everything else is a ServerError
ERROR_OF_STATUS: dict[str | None, type[MedImageParseError]] = {
    "StatusCode.INVALID_ARGUMENT": InvalidRequest,
    "400": InvalidRequest,
    "StatusCode.UNAVAILABLE": ServerUnavailable,
    "503": ServerUnavailable,
    "StatusCode.NOT_FOUND": ServerUnavailable,
    "404": ServerUnavailable,
    # a proxy's: no key or a wrong one, too large a body, no server behind it
    "StatusCode.UNAUTHENTICATED": AccessDenied,
    "401": AccessDenied,
    "StatusCode.PERMISSION_DENIED": AccessDenied,
    "403": AccessDenied,
    "413": InvalidRequest,
    "502": ServerUnavailable,
    "StatusCode.DEADLINE_EXCEEDED": RequestTimeout,
    "504": RequestTimeout,
}

# what a transport says of TLS -> the error, and what to do; the first that is found
TLS_WORDS = (
    (
        AccessDenied,
        re.compile("CERTIFICATE_VERIFY_FAILED|Hostname Verification|hostname mismatch", re.IGNORECASE),
        "its certificate is for another host, or its authority is not trusted here; name that authority's file as ca",
    ),
    (
        ServerUnavailable,  # which may be its restart
        re.compile(r"failed to connect to all addresses.*(Socket closed|handshake)|\[SSL: |SSLEOFError", re.IGNORECASE),
        "it closed the connection; if it speaks TLS, write grpcs:// or https:// before the host, if not, grpc:// or "
        "http://, and if it wants to know its clients, give a certificate that it trusts",
    ),
)
NOT_TRITONS = "an exception occurred in the client while decoding the response"
ENSEMBLE_PREFIX = re.compile(r"^(in ensemble '[^']*', )*(\[request id: [^]]*\] )?")
# Triton's words
QUEUE_FULL, WAITED_TOO_LONG = "Exceeds maximum queue size", "Request timeout expired"


@contextmanager
def errors_named(request_id: str) -> Iterator[None]:
    """The errors of this package that leave the block get the id of the request."""
    try:
        yield
    except MedImageParseError as error:
        error.request_id = request_id
        raise


@contextmanager
def translate_errors(url: str, timeout_s: float) -> Iterator[None]:
    """Raises what the transport raises in the block as an error of this package."""
    try:
        yield
    except InferenceServerException as error:
        raise server_error(error, url, timeout_s) from error
    except TimeoutError as error:
        raise timeout_error(url, timeout_s) from error
    except OSError as error:
        raise unavailable_error(url, error.strerror or "no connection") from error
    except HTTPException as error:
        raise unavailable_error(url, "the connection was closed, or this port does not speak HTTP") from error


def server_error(error: InferenceServerException, url: str, timeout_s: float) -> MedImageParseError:
    """The error of this package for one of tritonclient's."""
    kind = ERROR_OF_STATUS.get(error.status(), ServerError)
    if kind is RequestTimeout:
        return timeout_error(url, timeout_s)
    # below the first line stands, at most, a traceback
    message = error.message()
    message = message if message and isinstance(message, str) else "no reason given"  # from JSON it may be anything
    words = ENSEMBLE_PREFIX.sub("", message).split("\n", 1)[0]
    if words == WAITED_TOO_LONG:
        limit = f"{timeout_s:g} s, or for longer than the server lets requests wait"
        return WaitedTooLong(f"the request waited in the queue of {url} for {limit}; try again later")
    if words.startswith(TOOK_TOO_LONG):
        return RequestTimeout(words)
    if words == QUEUE_FULL:
        kind, words = ServerBusy, "it is busy and its queue is full; try again later"
    if STEP_DIED.match(words):
        kind, words = ServerUnavailable, "one of its processes has died"
    if words.startswith(NOT_TRITONS):
        words = f"a proxy, or something else than Triton, answered with HTTP {error.status()}"
    return unavailable_error(url, words, kind) if issubclass(kind, ServerUnavailable) else kind(words)


def timeout_error(url: str, timeout_s: float) -> RequestTimeout:
    return RequestTimeout(f"no answer from {url} within {timeout_s:g} s; a longer time-out may help")


def unavailable_error(url: str, words: str, kind: type[ServerUnavailable] = ServerUnavailable) -> ServerUnavailable:
    of_tls = ((kind, advice) for kind, pattern, advice in TLS_WORDS if pattern.search(words))
    kind, words = next(of_tls, (kind, words))
    return kind(f"the server at {url} is not available: {words}")
