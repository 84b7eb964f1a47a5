"""The rows of one request of /score through Triton: two at a time, answered in order, until the time limit."""

import asyncio
from collections.abc import Mapping, Sequence

from medimageparse_client.wire import Value

from medimageparse_gateway.azure_forms import Row
from medimageparse_gateway.azure_models import Outputs, ScoredModel
from medimageparse_gateway.errors import STATUS_OF_KIND, HttpError, TritonError
from medimageparse_gateway.triton import Triton

ROWS_AT_ONCE = 2  # as many as a model has instances: one request would fill the queue alone otherwise
MAX_ANSWER_BYTES = 512 * 2**20 * 4 // 3  # 512 MiB of masks in base64
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0  # for a place in the queue

RUN_FAILED = {"x-ms-run-function-failed": "True"}
# Azure's own words for a failing model
STEP_FAILED = {"ms-azureml-model-error-statuscode": "500", "ms-azureml-model-error-reason": "model_error"}
TOO_SLOW = "the request was not answered within {:g} s; send fewer rows or smaller images"
TOO_LARGE = "the masks of this request take more than 512 MiB; send fewer rows, prompts or pixels"


async def score_rows(
    triton: Triton,
    model: ScoredModel,
    rows: Sequence[Row],
    options: Mapping[str, Value],
    timeout_s: float,
    request_id: str,
) -> list[bytes]:
    """A JSON object for each row. One that fails ends the others; cancelling ends all. Raises HttpError."""
    answers = [b""] * len(rows)
    waiting = iter(enumerate(rows))
    deadline = asyncio.get_running_loop().time() + timeout_s

    async def work() -> None:
        for number, row in waiting:
            outputs = await infer_row(triton, model, number, row, options, deadline, request_id)
            answers[number] = await asyncio.to_thread(model.encode, outputs)
            if sum(map(len, answers)) > MAX_ANSWER_BYTES:
                raise HttpError(400, TOO_LARGE)

    try:
        async with asyncio.timeout_at(deadline), asyncio.TaskGroup() as group:
            for _ in range(ROWS_AT_ONCE):
                group.create_task(work())
    except TimeoutError:
        raise HttpError(408, TOO_SLOW.format(timeout_s), RUN_FAILED) from None
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return answers


async def infer_row(
    triton: Triton,
    model: ScoredModel,
    number: int,
    row: Row,
    options: Mapping[str, Value],
    deadline: float,
    request_id: str,
) -> Outputs:
    """A row's outputs. The first row is refused by a full queue; the others wait for a place."""
    wait_s = FIRST_WAIT_S
    inputs = model.inputs_of(row, options)
    while True:
        left_s = max(0.001, deadline - asyncio.get_running_loop().time())
        try:
            return await triton.infer(model.name, inputs, model.outputs, timeout_s=left_s, request_id=request_id)
        except TritonError as error:
            if error.kind != "queue_full" or number == 0:
                raise await error_of_row(triton, model, number, error) from None
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


async def error_of_row(triton: Triton, model: ScoredModel, number: int, error: TritonError) -> HttpError:
    if error.kind == "internal":
        if await triton.has(model.name):
            return HttpError(424, f"row {number}: {error.sentence}", RUN_FAILED | STEP_FAILED)
        return HttpError(503, "the model is being restarted; try again later", RUN_FAILED)
    return HttpError(STATUS_OF_KIND[error.kind], f"row {number}: {error.sentence}", RUN_FAILED)
