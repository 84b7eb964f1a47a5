"""The application: which path is answered by what, and the doors that every request comes through."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from medimageparse_gateway import azure_score, openapi, rest, viewer
from medimageparse_gateway.azure_headers import AzureHeaders, tidy
from medimageparse_gateway.bodies import Bodies
from medimageparse_gateway.doors import Doors
from medimageparse_gateway.errors import HttpError, TritonError, error_response, response_of
from medimageparse_gateway.linger import Linger
from medimageparse_gateway.metrics import Metrics, metrics
from medimageparse_gateway.quotas import Clock
from medimageparse_gateway.request_ids import RequestIds
from medimageparse_gateway.settings import Settings
from medimageparse_gateway.triton import Triton, connect
from medimageparse_gateway.watch import Watch


def build_app(settings: Settings, triton: Triton | None = None, clock: Clock = time.monotonic) -> Starlette:
    """The ASGI application; handlers find `triton`, `settings` and `metrics` in `request.app.state`.

    clock: seconds, for the quotas of keys
    """
    connection, counters = triton or connect(settings.triton, settings.triton_ca, settings.retry_for_s), Metrics()
    routes: list[BaseRoute] = [
        Route("/", healthy),
        Route("/ready", ready),
        Route("/metrics", metrics),
        *rest.routes(),
        *openapi.routes(),
        *viewer.routes(),
        *azure_score.routes(),
    ]
    paths = {route.path for route in routes if isinstance(route, Route)}

    def route_of(scope: Scope) -> str:
        """The route for log and metrics; a path that is none of ours is the caller's own words."""
        path = "/viewer" if scope["path"].startswith("/viewer/") else tidy(scope["path"])
        return path if path in paths else "other"

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await connection.close()

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(RequestIds),
            Middleware(Linger),
            Middleware(AzureHeaders),
            Middleware(Watch, metrics=counters, route_of=route_of),
            Middleware(Doors, settings=settings, metrics=counters, clock=clock),
            Middleware(Bodies, settings=settings, gauge=counters.held),
        ],
        exception_handlers={HTTPException: on_http_exception, HttpError: on_error, TritonError: on_error},
    )
    app.state.settings, app.state.triton, app.state.metrics = settings, connection, counters
    return app


async def healthy(request: Request) -> Response:
    """The front door lives, which says nothing of a model."""
    return PlainTextResponse("Healthy")


async def ready(request: Request) -> Response:
    """A model takes requests now."""
    if await request.app.state.triton.ready():
        return PlainTextResponse("Ready")
    return error_response(503, "no model takes requests now")


async def on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HttpError | TritonError)
    request.scope["reason"] = error.kind if isinstance(error, TritonError) else error.reason
    return response_of(error)


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own, in our form: no such path, another method."""
    assert isinstance(error, HTTPException)
    sentences = {404: "there is nothing at this address", 405: "this address does not take this method"}
    return error_response(error.status_code, sentences.get(error.status_code, error.detail), error.headers)
