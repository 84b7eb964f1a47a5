"""A public model: one step after the other, all through BLS.

No ensemble, because Triton does not tell a running step of an ensemble that its request was cancelled. A refusal is an
output of a step, because BLS loses the codes of errors (tritonserver 2.51).
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from medimageparse_contract.request_ids import valid_or_none
from medimageparse_contract.sentences import STEP_AWAY, TOOK_TOO_LONG
from numpy.typing import NDArray

from medimageparse_serving.prompts.vocabulary import doubts, read_words
from medimageparse_serving.refused import Refused
from medimageparse_serving.step_environment import RUNTIME, STEP_PATIENCE
from medimageparse_serving.triton import access_log, inner_key, traces
from medimageparse_serving.triton.counts import ANSWERED, CANCELLED, Counts, Work
from medimageparse_serving.triton.step import read_parameters
from medimageparse_serving.triton.tensors import Inputs, as_tensors, place_of

PAUSE_S = 0.1
Arrays = dict[str, NDArray[Any]]
Tell = Callable[[str], None]  # of progress, to a caller who listens


class RequestEnded(Exception):
    """Ends a request: a sentence for the caller, and Triton's code."""


class Calls:
    """The calls of one request, how long each model took, and whom to tell of progress."""

    def __init__(self, models: dict[str, str], check: Callable[[], None], work: Work, tell: Tell | None = None) -> None:
        """`check` raises RequestEnded where the request is not to go on; a canary's calls are computed, not remembered.

        Who calls writes into `work` how much there is of it.
        """
        self.models, self.check, self.work, self.tell = models, check, work, tell
        self.sent_along = inner_key.parameters(work.is_canary)
        self.trace: dict[str, Any] = {}  # what traces.py has sent along
        self.start_ns = time.monotonic_ns()
        self.took_ns: dict[str, int] = {}
        self.ended_ns: dict[str, int] = {}

    async def call(self, model: str, names: Iterable[str], tensors: Iterable[Any]) -> Arrays:
        """The outputs of the model that the parameter names."""
        return await self.start(model, names, tensors)()

    def start(self, model: str, names: Iterable[str], tensors: Iterable[Any]) -> Callable[[], Awaitable[Arrays]]:
        """Begins an inference, unless the request has ended; what it gives is called, once, for the outputs."""
        self.check()
        name, began_ns = self.models[model], time.monotonic_ns()
        names, inputs = list(names), list(tensors)

        def send() -> Any:
            return pb_utils.InferenceRequest(
                model_name=name,
                requested_output_names=names,
                inputs=inputs,
                preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
                parameters=self.sent_along,
                **self.trace,
            ).async_exec()

        pending = send()

        async def finish() -> Arrays:
            outputs = read_response(await self.insist(await pending, send, name), name, self.work)
            # of calls that run side by side the later one counts from the end of the earlier
            begin_ns = max(began_ns, self.ended_ns.get(name, 0))
            self.ended_ns[name] = time.monotonic_ns()
            self.took_ns[name] = self.took_ns.get(name, 0) + self.ended_ns[name] - begin_ns
            return outputs

        return finish

    async def insist(self, response: Any, send: Callable[[], Any], model: str) -> Any:
        """The response; of a step that died, one of later, since the supervisor loads it again in a few seconds."""
        deadline, is_first = time.monotonic() + float(os.environ.get(STEP_PATIENCE, "0")), True
        while response.has_error() and STEP_AWAY.search(response.error().message()) and time.monotonic() < deadline:
            if is_first:
                pb_utils.Logger.log_warn(self.work.named(f"{model} died or is loaded again; a request waits for it"))
            self.check()
            await asyncio.sleep(0 if is_first else PAUSE_S)
            response, is_first = await send(), False
        return response

    def milliseconds(self) -> dict[str, float]:
        """By model, and all together."""
        took_ns = self.took_ns | {"total": time.monotonic_ns() - self.start_ns}
        return {name: round(took / 1e6, 1) for name, took in took_ns.items()}


def read_response(response: Any, model: str, work: Work) -> Arrays:
    """The outputs of a response by name, in its own memory, which stays as long as one of them."""
    if response.has_error():
        reason = response.error().message().splitlines()[0]
        pb_utils.Logger.log_error(work.named(f"{model}: {reason}"))
        if STEP_AWAY.search(reason):
            raise RequestEnded(f"{model} died; try again in a few seconds", pb_utils.TritonError.UNAVAILABLE)
        raise RequestEnded(f"{model} failed; the server's log says why", pb_utils.TritonError.INTERNAL)
    outputs = {tensor.name(): held(tensor.as_numpy(), response) for tensor in response.output_tensors()}
    if "refusal" in outputs:
        refusal = Refused(outputs["refusal"].item().decode())
        refusal.step = model
        raise refusal
    return outputs


class Held:
    """An array's memory, and what it goes with."""

    def __init__(self, array: NDArray[Any], owner: object) -> None:
        self.__array_interface__ = array.__array_interface__
        self.kept = array, owner


def held(array: NDArray[Any], owner: object) -> NDArray[Any]:
    """The same array, which keeps its owner; an array of objects has memory of its own."""
    return array if array.dtype == object else np.asarray(Held(array, owner))


def watch(request: Any, max_seconds: int) -> Callable[[], None]:
    """Ends a request whose caller gave up, by cancelling or by a time-out sent with it, or that runs for too long."""
    begin_ns = time.monotonic_ns()
    patience_ns = request.timeout() * 1000 or sys.maxsize

    def check() -> None:
        took_ns = time.monotonic_ns() - begin_ns
        if request.is_cancelled() or took_ns > patience_ns:
            sentence = "the request was cancelled, or its time-out is over"
        elif took_ns > max_seconds * 1e9:
            sentence = f"{TOOK_TOO_LONG}, {max_seconds} s; send a smaller image, or fewer prompts"
        else:
            return
        raise RequestEnded(sentence, pb_utils.TritonError.CANCELLED)

    return check


class Pipeline:
    """What the public models share; each says in `answer` what it calls. Its parameters name the models."""

    required: tuple[str, ...] = ("image",)  # Triton counts the inputs, and an option may stand in for one
    networks_of = ""  # the model that has networks.json, if it is another one

    def initialize(self, args: dict[str, str]) -> None:
        self.parameters = read_parameters(args)
        self.max_seconds = int(self.parameters["max_seconds"])
        model = Path(args["model_repository"])
        steps = {value for name, value in self.parameters.items() if name.endswith("_model")}
        self.counts = Counts(model.name, sorted(steps))
        folder = model.with_name(self.networks_of or model.name) / args["model_version"]
        self.runtime = os.environ.get(RUNTIME, "")
        self.known_words = read_words(folder)
        self.networks = json.loads((folder / "networks.json").read_text()) | {"runtime": self.runtime or None}

    async def answer(self, inputs: Inputs, calls: Calls, wanted: list[str]) -> Arrays:
        """The outputs by name, those that are wanted among them; Refused or RequestEnded if there are none."""
        raise NotImplementedError

    async def execute(self, requests: list[Any]) -> list[Any]:
        return [await self.respond(request) for request in requests]

    async def respond(self, request: Any, tell: Tell | None = None) -> Any:
        if inner_key.is_warming_up() and not inner_key.is_ours(request):
            return self.failed(inner_key.WARMING_UP, pb_utils.TritonError.UNAVAILABLE)
        work = Work(valid_or_none(request.request_id() or ""))
        response = await self.answer_or_error(request, tell, work)
        self.counts.add(work)
        access_log.write(self.counts.model, work)
        return response

    async def answer_or_error(self, request: Any, tell: Tell | None, work: Work) -> Any:
        try:
            response = pb_utils.InferenceResponse(await self.tensors_of(request, tell, work))
            work.outcome = ANSWERED
            return response
        except Refused as refusal:
            work.refuse(refusal.step)
            return self.failed(str(refusal), pb_utils.TritonError.INVALID_ARG)
        except RequestEnded as error:
            sentence, code = error.args
            if code == pb_utils.TritonError.CANCELLED:
                work.outcome = CANCELLED
            return self.failed(sentence, code)
        except Exception as error:
            pb_utils.Logger.log_error(work.named(place_of(error)))
            return self.failed("the request failed; the server's log says why", pb_utils.TritonError.INTERNAL)

    def failed(self, sentence: str, code: Any) -> Any:
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(sentence, code))

    async def tensors_of(self, request: Any, tell: Tell | None, work: Work) -> list[Any]:
        inputs, work.is_canary = Inputs(request), inner_key.is_from_launcher(request)
        calls = Calls(self.parameters, watch(request, self.max_seconds), work, tell)
        calls.trace = traces.along(request)
        for name in self.required:
            if name not in inputs:
                raise Refused(f"{name} is missing; every request needs it")
        wanted = list(request.requested_output_names())
        arrays = await self.answer(inputs, calls, wanted)
        outputs: dict[str, object] = {name: array for name, array in arrays.items() if name in wanted}
        if "report" in outputs:
            report = json.loads(arrays["report"].item())
            report["warnings"] += doubts((prompt["text"] for prompt in report["prompts"]), self.known_words)
            report |= {"milliseconds": calls.milliseconds()}
            outputs["report"] = json.dumps(report | ({"request_id": work.request_id} if work.request_id else {}))
        return as_tensors(outputs)
