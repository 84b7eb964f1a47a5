"""/viewer: one page that shows masks in a browser. It asks /v1 as every other caller does, and works offline."""

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

HERE = Path(__file__).parent
# scripts and styles are those of this folder and no others; NiiVue has its font and colours as data: pictures
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",  # kept, but asked about each time: another version of the gateway has another page
}


class Files(StaticFiles):
    """The page's files, with the headers of the page."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(HEADERS)
        return response


FILES = Files(directory=HERE / "files")


def routes() -> list[Route]:
    """A route for each file, so that nothing else in this folder can be asked for."""
    names = sorted(file.name for file in (HERE / "files").iterdir())
    return [
        Route("/viewer", page),
        Route("/viewer/", without_slash),
        *(Route(f"/viewer/{name}", file) for name in names),
    ]


async def page(request: Request) -> Response:
    return FileResponse(HERE / "index.html", headers=HEADERS)


async def file(request: Request) -> Response:
    return await FILES.get_response(request.url.path.rpartition("/")[2], request.scope)


async def without_slash(request: Request) -> Response:
    """The addresses in the page are relative, so that it works behind any prefix of a proxy."""
    return RedirectResponse("../viewer")
