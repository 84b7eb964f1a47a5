"""/swagger.json: the addresses of Azure's door as Swagger 2.0 or OpenAPI 3."""

from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

STRING: Json = {"type": "string"}
TABLE: Json = {
    "type": "object",
    "required": ["columns", "data"],
    "properties": {
        "columns": {"type": "array", "items": STRING, "example": ["image", "text"]},
        "index": {"type": "array", "items": {"type": "integer"}, "example": [0]},
        "data": {
            "type": "array",
            "maxItems": 256,
            "items": {"type": "array", "items": STRING},
            "example": [["<base64 of a PNG, JPEG or NIfTI file>", "liver & spleen"]],
        },
    },
}
REQUEST: Json = {
    "type": "object",
    "required": ["input_data"],
    "properties": {"input_data": TABLE, "params": {"description": "Any JSON value; options as an object."}},
}
ANSWER: Json = {
    "type": "array",
    "items": {
        "type": "object",
        "description": "image_features and text_features of an image, or nifti_file of a volume; all JSON in a string.",
        "properties": {
            "image_features": STRING,
            "text_features": {"type": "array", "items": STRING},
            "nifti_file": STRING,
        },
    },
}
ERROR: Json = {
    "type": "object",
    "required": ["message", "error"],
    "properties": {"message": STRING, "error": {"type": "object", "properties": {"code": STRING, "message": STRING}}},
}
INFO: Json = {
    "title": "MedImageParse",
    "version": "1.0",
    "description": "Masks of medical images and volumes from text prompts.",
}
ERRORS = {
    "400": "The request is wrong; the message says what to send instead.",
    "401": "There is no key, or it is not known here.",
    "408": "The time limit is over.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "424": "A step of the model failed.",
    "429": "The queue is full; try again after Retry-After seconds.",
    "503": "The model is away; try again after Retry-After seconds.",
}
HEALTHY: Json = {"operationId": "health", "summary": "Whether the front door lives.", "security": []}
SCORE: Json = {"operationId": "score", "summary": "Masks for rows of image and prompts."}
PATHS = ("/score", "/medimageparse/score", "/medimageparse_3d/score")


def swagger(version: str) -> Json | None:
    """The document of a version: 2, 3 or 3.1; None for any other."""
    if version == "2":
        return swagger_2()
    openapi = {"3": "3.0.3", "3.1": "3.1.0"}.get(version)
    return openapi_3(openapi) if openapi else None


def swagger_2() -> Json:
    def answer(description: str, schema: Json) -> Json:
        return {"description": description, "schema": schema}

    body = {"name": "body", "in": "body", "required": True, "schema": REQUEST}
    score = {"consumes": ["application/json"], "produces": ["application/json"], "parameters": [body]}
    return {
        "swagger": "2.0",
        "info": INFO,
        "schemes": ["https", "http"],
        "securityDefinitions": {"Bearer": {"type": "apiKey", "name": "Authorization", "in": "header"}},
        "security": [{"Bearer": []}],
        "paths": paths_of(score, {"produces": ["text/plain"]}, answer),
    }


def openapi_3(openapi: str) -> Json:
    def answer(description: str, schema: Json) -> Json:
        kind = "application/json" if schema is not STRING else "text/plain"
        return {"description": description, "content": {kind: {"schema": schema}}}

    score = {"requestBody": {"required": True, "content": {"application/json": {"schema": REQUEST}}}}
    return {
        "openapi": openapi,
        "info": INFO,
        "components": {"securitySchemes": {"Bearer": {"type": "http", "scheme": "bearer"}}},
        "security": [{"Bearer": []}],
        "paths": paths_of(score, {}, answer),
    }


def paths_of(score: Json, healthy: Json, answer: Any) -> Json:
    """The paths of any version. answer: description and schema -> a response."""
    responses = {"200": answer("One object for each row, in their order.", ANSWER)}
    responses |= {status: answer(words, ERROR) for status, words in ERRORS.items()}
    health = {"get": {**HEALTHY, **healthy, "responses": {"200": answer("Healthy", STRING)}}}
    posts = {
        path: {"post": {**SCORE, **score, "operationId": path.strip("/").replace("/", "_"), "responses": responses}}
        for path in PATHS
    }
    return {"/": health, **posts}
