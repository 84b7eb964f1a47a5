"""A decoupled public model: its request is answered by progress, as often as there is some, and then by the outputs."""

import asyncio
from typing import Any

import triton_python_backend_utils as pb_utils

from medimageparse_serving.triton.pipeline import Pipeline
from medimageparse_serving.triton.tensors import as_tensors


class Stream(Pipeline):
    """Goes before the pipeline that it streams: `class TritonPythonModel(Stream, VolumePipeline)`."""

    # No coroutine as in Pipeline: Triton would run any number of them at once, and leave none in its bounded queue.
    def execute(self, requests: list[Any]) -> None:  # type: ignore[override]
        for request in requests:
            asyncio.run(self.stream(request))

    def failed(self, sentence: str, code: Any) -> Any:
        """Errors in a stream lose their code on the way, so the sentence begins with it."""
        codes = pb_utils.TritonError
        names = {codes.INVALID_ARG: "INVALID_ARGUMENT", codes.CANCELLED: "CANCELLED", codes.UNAVAILABLE: "UNAVAILABLE"}
        return super().failed(f"{names.get(code, 'INTERNAL')}: {sentence}", code)

    async def stream(self, request: Any) -> None:
        sender = request.get_response_sender()

        def tell(progress: str) -> None:
            sender.send(pb_utils.InferenceResponse(as_tensors({"progress": progress})))

        wants_progress = "progress" in request.requested_output_names()
        answer = await self.respond(request, tell if wants_progress else None)
        sender.send(answer, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
