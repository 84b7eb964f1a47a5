"""/openapi.json and /docs: what /v1 takes and gives, said once, for programs and for people."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, TypeAlias

from medimageparse_contract.image_formats import NAMES
from medimageparse_contract.image_types import TARGETS
from medimageparse_contract.options import INTENSITIES, MAX_DRAWS, ORIENTATIONS, SLICE_AXES
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from medimageparse_gateway.answers import EVENT_STREAM, IMAGE_ANSWERS, VOLUME_ANSWERS, VOLUME_FILES

Json: TypeAlias = dict[str, Any]

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STRING: Json = {"type": "string"}
FILE: Json = {"type": "string", "format": "binary"}
OPTIONS: Mapping[str, Json] = {
    "preset": {**STRING, "description": "In place of prompts a set of /v1/structures, or several separated by '&'."},
    "intensity": {**STRING, "enum": list(INTENSITIES), "default": "auto", "description": "How grey values are read."},
    "orientation": {**STRING, "enum": list(ORIENTATIONS), "default": "LAS", "description": "How slices are turned."},
    "slice_axis": {**STRING, "enum": list(SLICE_AXES), "default": "auto", "description": "Which axis slices lie on."},
    "output": {
        **STRING,
        "enum": list(VOLUME_FILES),
        "default": "nifti_file",
        "description": "Which file application/gzip is.",
    },
    "instances": {"type": "boolean", "description": "Whether things are counted and told one by one."},
    "draws": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_DRAWS,
        "default": 1,
        "description": "Samples of the model; the answer is their mean.",
    },
    "image_type": {**STRING, "enum": list(TARGETS), "description": "Kind of picture; without prompts: recognition."},
    "joint": {"type": "boolean", "description": "Whether prompts are decoded together."},
    "p_value_threshold": {"type": "number", "description": "Recognition leaves out what is less probable."},
    "tile": {"type": "boolean", "description": "Whether a large picture is looked at in tiles, at its own pixels."},
}
IMAGE_OPTIONS = ("image_type", "joint", "p_value_threshold", "tile")
VOLUME_OPTIONS = ("preset", "intensity", "orientation", "slice_axis", "output", "instances", "draws")
ERRORS = {
    400: "The request is wrong; the message says what to send instead.",
    401: "The key is missing or not known here.",
    406: "No form of the answer fits Accept.",
    408: "The body came too slowly, or the model took too long.",
    413: "The body is too large.",
    415: "The body is not multipart/form-data, or is compressed.",
    424: "A step of the model failed.",
    429: "Too many requests; try again after Retry-After seconds.",
    503: "The model does not answer now; try again after Retry-After seconds.",
}
ERROR: Json = {
    "type": "object",
    "properties": {"error": {"type": "object", "properties": {"code": STRING, "message": STRING}}},
}


def document() -> Json:
    """OpenAPI 3.1."""
    described = (
        "A .nii.gz in the voxels of the volume, usually with label k for prompt k; a report; or progress as events."
    )
    volume = ask("segmentVolume", "Segment a NIfTI volume", described, VOLUME_OPTIONS)
    answer_with(volume, (*VOLUME_ANSWERS, EVENT_STREAM))
    described = "A palette PNG in the pixels of the picture, label k is the k-th prompt; a report; or probabilities."
    image = ask("segmentImage", f"Segment a {NAMES} file", described, IMAGE_OPTIONS)
    answer_with(image, IMAGE_ANSWERS)
    filters = [
        {"name": name, "in": "query", "schema": STRING, "description": words}
        for name, words in (("model", "2d or 3d"), ("modality", "CT, MR, ..."), ("preset", "a set of structures"))
    ]
    listing = {"operationId": "listStructures", "summary": "The structures that the models know", "parameters": filters}
    models: Json = {"operationId": "listModels", "summary": "Which models take requests now, and the limits"}
    for operation in (listing, models):
        answer_with(operation, ("application/json",), errors=(401, 429))
    return {
        "openapi": "3.1.0",
        "info": {"title": "MedImageParse", "version": "1", "description": "Masks from text prompts."},
        "paths": {
            "/v1/volumes": {"post": volume},
            "/v1/images": {"post": image},
            "/v1/structures": {"get": listing},
            "/v1/models": {"get": models},
        },
        "components": {
            "schemas": {"Error": ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],  # a gateway without keys needs none
    }


def ask(name: str, summary: str, described: str, options: Iterable[str]) -> Json:
    """An operation that takes a form."""
    prompts = {"type": "array", "items": STRING, "description": "One part for each structure, without '&'."}
    properties = {"image": FILE, "prompt": prompts, **{option: OPTIONS[option] for option in options}}
    schema = {"type": "object", "required": ["image"], "properties": properties}
    body = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    return {"operationId": name, "summary": summary, "description": described, "requestBody": body}


def answer_with(operation: Json, medias: Iterable[str], errors: Iterable[int] = tuple(ERRORS)) -> None:
    content = {media: {"schema": {} if media.endswith("json") else FILE} for media in medias}
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    operation["responses"] = {"200": {"description": "The first is the usual one.", "content": content}} | {
        str(status): {"description": ERRORS[status], "content": refusal} for status in errors
    }


def routes() -> list[Route]:
    return [Route("/openapi.json", openapi), Route("/docs", docs)]


async def openapi(request: Request) -> Response:
    """For programs."""
    return JSONResponse(document())


async def docs(request: Request) -> Response:
    """The same for people, without a script."""
    return HTMLResponse(
        page_of(document()), headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
    )


def page_of(described: Json) -> str:
    operations = [
        section(method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    style = "body{font:16px sans-serif;max-width:50em;margin:2em auto;padding:0 1em}td{padding:.2em 1em .2em 0}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>MedImageParse</title><style>{style}</style>'
    return f'{head}<h1>MedImageParse</h1><p><a href="openapi.json">openapi.json</a></p>{"".join(operations)}</html>'


def section(method: str, path: str, operation: Json) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data", {})
    parts: Json = body.get("schema", {}).get("properties", {})
    rows = [(name, part.get("description", "the file") + choices(part)) for name, part in parts.items()]
    rows += [(each["name"], each["description"]) for each in operation.get("parameters", [])]
    rows += [(status, answer["description"]) for status, answer in operation["responses"].items() if status != "200"]
    rows.append(("Accept", ", ".join(operation["responses"]["200"]["content"])))
    cells = "".join(f"<tr><td>{escape(name)}<td>{escape(words)}" for name, words in rows)
    title = f"<h2>{method.upper()} {escape(path)}</h2><p>{escape(operation['summary'])}. "
    return f"{title}{escape(operation.get('description', ''))}</p><table>{cells}</table>"


def choices(part: Json) -> str:
    return " One of " + ", ".join(part["enum"]) + "." if "enum" in part else ""
