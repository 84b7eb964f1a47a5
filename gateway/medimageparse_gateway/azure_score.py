"""Azure's door: POST /score and mlflow's /invocations, for clients that know nothing of Triton."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from medimageparse_gateway.azure_answer import list_response
from medimageparse_gateway.azure_forms import Row, ScoreRequest, read_score
from medimageparse_gateway.azure_headers import is_json, takes_gzip, tidy
from medimageparse_gateway.azure_mlflow import read_csv, read_invocation
from medimageparse_gateway.azure_models import MODELS, ScoredModel, model_named, model_of_file
from medimageparse_gateway.azure_rows import score_rows
from medimageparse_gateway.azure_swagger import swagger
from medimageparse_gateway.errors import HttpError, error_response
from medimageparse_gateway.hangup import run_unless_hung_up
from medimageparse_gateway.triton import Triton

Reader: TypeAlias = Callable[[bytearray], ScoreRequest]

DEPLOYMENT = "azureml-model-deployment"


@dataclass(frozen=True)
class Form:
    """What callers of a path send, by media type, and what stands around the rows of their answer."""

    readers: dict[str, Reader]
    opening: bytes
    closing: bytes

    def reader(self, content_type: str) -> Reader:
        """Raises HttpError."""
        kind = "application/json" if is_json(content_type) else content_type.partition(";")[0].strip().lower()
        if kind not in self.readers:
            raise HttpError(415, f"the body is of another type; send Content-Type: {' or '.join(self.readers)}")
        return self.readers[kind]


SCORE = Form({"application/json": read_score}, b"[", b"]")
MLFLOW = Form({"application/json": read_invocation, "text/csv": read_csv}, b'{"predictions":[', b"]}")


class ModelChoice:
    """Which model a bare /score means."""

    def __init__(self) -> None:
        # those that this gateway has seen at work: one that restarts is not taken for one that is not there
        self.served: set[str] = set()

    async def choose(self, triton: Triton, deployment: str, rows: Sequence[Row]) -> ScoredModel:
        """By the deployment's name if it is served, or the only one, or the first row's file. Raises HttpError."""
        if len(self.served) < len(MODELS):
            self.served |= {name for name, is_ready in (await triton.models_ready()).items() if is_ready}
        named = model_named(deployment)
        if named and named.name in self.served:
            return named
        if len(self.served) == 1:
            [only] = self.served
            return MODELS[only]
        return model_of_file(rows[0].image)


class ScoreEndpoint:
    """An ASGI application for one path; without a model it chooses one for each request."""

    def __init__(self, form: Form, model: ScoredModel | None = None) -> None:
        self.form, self.model, self.choice = form, model, ModelChoice()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, started = Request(scope, receive), time.perf_counter()
        try:
            response = await self.respond(request)
        except HttpError as error:
            scope["reason"] = error.reason
            response = self.error(error)
        response.headers["x-ms-run-fn-exec-ms"] = str(round(1000 * (time.perf_counter() - started)))
        await response(scope, receive, send)

    async def respond(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(media_type="application/json")
        if request.method != "POST":
            raise HttpError(405, "this address takes POST only", {"Allow": "POST, OPTIONS"})
        read = self.form.reader(request.headers.get("content-type", ""))
        sent = await asyncio.to_thread(read, await read_body(request))
        answers = await self.answers_of(request, sent)
        gzipped = takes_gzip(request.headers.get("accept-encoding", ""))
        return list_response(self.form.opening, answers, self.form.closing, gzipped=gzipped)

    async def answers_of(self, request: Request, sent: ScoreRequest) -> list[bytes]:
        if not sent.rows:
            return []
        triton, timeout_s = request.app.state.triton, request.app.state.settings.timeout_s
        deployment = request.headers.get(DEPLOYMENT, "")
        model = self.model or await self.choice.choose(triton, deployment, sent.rows)
        request_id, options = request.scope["request_id"], model.read_params(sent.params)
        work = score_rows(triton, model, sent.rows, options, timeout_s, request_id)
        return await run_unless_hung_up(request, work)

    def error(self, error: HttpError) -> Response:
        if self.form is SCORE:
            return error_response(error.status, error.sentence, error.headers)
        name = HTTPStatus(error.status).phrase.upper().replace(" ", "_")
        return error_response(error.status, error.sentence, error.headers, error_code=name)


async def read_body(request: Request) -> bytearray:
    body = bytearray()
    async for piece in request.stream():
        body += piece
    return body


class TidyRoute(Route):
    """A route that `/score/` and `//score` lead to as well."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        return super().matches({**scope, "path": tidy(scope["path"])})


def routes() -> list[Route]:
    """All of Azure's and mlflow's addresses but `/`, which needs no model."""
    score = [TidyRoute(f"/{name}/score", ScoreEndpoint(SCORE, model)) for name, model in MODELS.items()]
    invocations = [TidyRoute(f"/{name}/invocations", ScoreEndpoint(MLFLOW, model)) for name, model in MODELS.items()]
    return [
        TidyRoute("/score", ScoreEndpoint(SCORE)),
        TidyRoute("/invocations", ScoreEndpoint(MLFLOW)),
        *score,
        *invocations,
        Route("/swagger.json", answer_swagger),
        Route("/ping", answer_ping),
        Route("/health", answer_ping),
        Route("/version", answer_version),
    ]


async def answer_swagger(request: Request) -> Response:
    document = swagger(request.query_params.get("version", "2"))
    if document is None:
        raise HttpError(404, "there is no swagger of this version; ask for version 2, 3 or 3.1")
    return JSONResponse(document)


async def answer_ping(request: Request) -> Response:
    return PlainTextResponse("\n")


async def answer_version(request: Request) -> Response:
    return PlainTextResponse(version("medimageparse-triton"))
