"""The application: which path is answered by what, and the doors that every request comes through."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from medimageparse_gateway.errors import HttpError, TritonError, error_response, response_of
from medimageparse_gateway.settings import Settings
from medimageparse_gateway.triton import Triton


def build_app(settings: Settings, triton: Triton | None = None) -> Starlette:
    """The ASGI application; handlers find `triton` and `settings` in `request.app.state`."""
    connection = triton or connect(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await connection.close()

    app = Starlette(routes=[Route("/", healthy), Route("/ready", ready)], lifespan=lifespan)
    app.state.settings, app.state.triton = settings, connection
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(HttpError, on_error)
    app.add_exception_handler(TritonError, on_error)
    return app


def connect(settings: Settings) -> Triton:
    return Triton(settings.triton)


async def healthy(request: Request) -> Response:
    """The front door lives, which says nothing of a model."""
    return PlainTextResponse("Healthy")


async def ready(request: Request) -> Response:
    if await request.app.state.triton.ready():
        return PlainTextResponse("Ready")
    return error_response(503, "no model takes requests now")


async def on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HttpError | TritonError)
    return response_of(error)


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own, in our form: no such path, another method."""
    assert isinstance(error, HTTPException)
    sentences = {404: "there is nothing at this address", 405: "this address does not take this method"}
    return error_response(error.status_code, sentences.get(error.status_code, error.detail), error.headers)
