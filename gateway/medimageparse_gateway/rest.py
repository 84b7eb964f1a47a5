"""/v1: forms in, files out, for people and scripts without a Triton client."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from medimageparse_client.errors import InvalidRequest
from medimageparse_client.inputs import check_prompts, encode_prompts
from medimageparse_client.wire import Value
from medimageparse_contract.catalogue import Model, structures
from medimageparse_contract.models import MODEL_2D, MODEL_3D
from medimageparse_contract.options import OUTPUTS_3D
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from medimageparse_gateway.accept import choose
from medimageparse_gateway.answers import EVENT_STREAM, IMAGE_ANSWERS, VOLUME_ANSWERS, VOLUME_FILES, Answer
from medimageparse_gateway.errors import HttpError
from medimageparse_gateway.forms import Form, read_form
from medimageparse_gateway.hangup import run_unless_hung_up
from medimageparse_gateway.progress import EventStream

NO_STORE = {"cache-control": "no-store"}


def as_bool(text: str) -> bool:
    return {"true": True, "false": False}[text.strip().lower()]


def as_int32(text: str) -> int:
    value = int(text)
    if abs(value) >= 2**31:
        raise ValueError
    return value


# name of an option -> what its text becomes, and what to write
Reader = tuple[Callable[[str], Value], str]
VOLUME_OPTIONS: Mapping[str, Reader] = {
    **dict.fromkeys(("preset", "intensity", "orientation", "slice_axis", "output"), (str, "")),
    "instances": (as_bool, "true or false"),
    "draws": (as_int32, "a whole number such as 8"),
}
IMAGE_OPTIONS: Mapping[str, Reader] = {
    "image_type": (str, ""),
    "joint": (as_bool, "true or false"),
    "p_value_threshold": (float, "a number such as 0.05"),
    "tile": (as_bool, "true or false"),
}


def routes() -> list[Route]:
    return [
        Route("/v1/volumes", volumes, methods=["POST"]),
        Route("/v1/images", images, methods=["POST"]),
        Route("/v1/structures", list_structures),
        Route("/v1/models", list_models),
    ]


async def volumes(request: Request) -> Response:
    """Segments a NIfTI volume."""
    media = choose(request.headers.get("accept", ""), (*VOLUME_ANSWERS, EVENT_STREAM))
    form = await read_form(request, VOLUME_OPTIONS)
    if not form.prompts and "preset" not in form.options:
        raise HttpError(400, "the form has neither prompt nor preset; send one: curl -F prompt=liver")
    inputs = inputs_of(form, VOLUME_OPTIONS)
    output = form.options.get("output", "nifti_file")
    answers = {**VOLUME_ANSWERS, "application/gzip": file_answer(output, inputs)}
    return await answer(request, MODEL_3D, form, inputs, media, answers)


def file_answer(output: str, inputs: dict[str, Value]) -> Answer:
    """Which file the answer is, and in `inputs` what the model is asked so that it makes it."""
    if output not in VOLUME_FILES:
        raise HttpError(400, f"output is unknown; send one of {', '.join(VOLUME_FILES)}, or leave it out")
    if output == "uncertainty_file" and inputs.get("draws", 1) == 1:
        raise HttpError(400, "uncertainty_file is the spread of several draws; send draws, for example 8")
    if output == "instances_file":
        inputs["instances"] = True
    inputs["output"] = output if output in OUTPUTS_3D else "nifti_file"
    return VOLUME_FILES[output]


async def images(request: Request) -> Response:
    """Segments a picture, or recognizes what is in it."""
    media = choose(request.headers.get("accept", ""), (*IMAGE_ANSWERS, EVENT_STREAM))
    form = await read_form(request, IMAGE_OPTIONS)
    if not form.prompts and "image_type" not in form.options:
        raise HttpError(400, "there is nothing to look for; send prompts, or image_type for all it has")
    return await answer(request, MODEL_2D, form, inputs_of(form, IMAGE_OPTIONS), media, IMAGE_ANSWERS)


def inputs_of(form: Form, options: Mapping[str, Reader]) -> dict[str, Value]:
    """The inputs of the model; HttpError for what it could not take. Other checks are the model's own."""
    inputs: dict[str, Value] = {"image": form.image}
    if form.prompts:
        try:
            form.prompts = list(check_prompts(form.prompts))
            inputs["text"] = encode_prompts(tuple(form.prompts))
        except InvalidRequest as error:
            raise HttpError(400, str(error)) from None
    for name, text in form.options.items():
        read, wanted = options[name]
        try:
            inputs[name] = read(text)
        except (ValueError, KeyError):
            raise HttpError(400, f"{name} is {wanted}") from None
    return inputs


async def answer(
    request: Request, model: str, form: Form, inputs: Mapping[str, Value], media: str, answers: Mapping[str, Answer]
) -> Response:
    """Asks the model and makes the file; both end when the caller hangs up."""
    if media == EVENT_STREAM:
        return EventStream(request, model, inputs, form, next(iter(answers.values())))
    wanted = answers[media]

    async def work() -> bytes:
        arrays = await request.app.state.triton.infer(
            model,
            inputs,
            wanted.outputs,
            timeout_s=request.app.state.settings.timeout_s,
            request_id=request.scope["request_id"],
        )
        return await asyncio.to_thread(wanted.made_of, form, arrays)

    content = await run_unless_hung_up(request, work())
    headers = {**NO_STORE, "content-disposition": f'attachment; filename="{wanted.file}"'}
    return Response(content, media_type=media, headers=headers)


async def list_structures(request: Request) -> Response:
    """The catalogue, or a part of it."""
    asked: Mapping[str, Any] = request.query_params
    models: dict[str | None, Model | None] = {None: None, "2d": "2d", "3d": "3d"}
    if asked.get("model") not in models:
        raise HttpError(400, "model is 2d or 3d")
    rows = structures(models[asked.get("model")], asked.get("modality"), asked.get("preset"))
    return JSONResponse([asdict(row) for row in rows])


async def list_models(request: Request) -> Response:
    """Which models take requests now, and the limits of this gateway."""
    state = request.app.state
    limits = {"max_body_bytes": state.settings.max_body_bytes, "timeout_s": state.settings.timeout_s}
    models = [{"name": name, "ready": ready} for name, ready in (await state.triton.models_ready()).items()]
    return JSONResponse({"models": models, "limits": limits}, headers=NO_STORE)
