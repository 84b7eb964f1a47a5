"""A public model that calls one step, within the stand-in for Triton's Python backend: both its forms, ready to ask."""

import asyncio
import json

import numpy as np
from helpers import fake_triton

fake_triton.install()

from medimageparse_serving.triton.pipeline import Pipeline  # noqa: E402
from medimageparse_serving.triton.stream import Stream  # noqa: E402

MODEL, STEP = "a_model", "a_step"


class OneCall(Pipeline):
    output = "report"  # what it asks the step for

    async def answer(self, inputs, calls, wanted):
        calls.work.n_slices, calls.work.n_prompts = 5, 3
        return await calls.call("step_model", [self.output], [])


class OneCallInAStream(Stream, OneCall):
    pass


BOTH_FORMS = (OneCall, OneCallInAStream)


def asking(form, output, ends, folder, monkeypatch):
    """ask(end, parameters, **request) asks for one answer, which the step ends as named, and gives the response."""
    monkeypatch.setattr(fake_triton.InferenceRequest, "answers", {})
    monkeypatch.setattr(form, "output", output)
    monkeypatch.setenv("MEDIMAGEPARSE_INNER_KEY", "a word")
    (folder / MODEL / "1").mkdir(parents=True)
    (folder / MODEL / "1" / "networks.json").write_text("{}")
    values = {"step_model": STEP, "max_seconds": "600"}
    config = {"parameters": {name: {"string_value": value} for name, value in values.items()}}
    pipeline = form()
    pipeline.initialize(
        {"model_config": json.dumps(config), "model_repository": str(folder / MODEL), "model_version": "1"}
    )

    def ask(end="answered", parameters="", **sent):
        fake_triton.InferenceRequest.answers[STEP] = ends[end]
        sent = fake_triton.Request([output], **({"image": np.zeros(1)} | sent))
        sent.sent_parameters = parameters
        found = pipeline.execute([sent])
        return sent.sent[-1][0] if found is None else asyncio.run(found)[0]

    return ask
