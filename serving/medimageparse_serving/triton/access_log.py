"""A line for each request that a public model has ended, on standard error, where the launcher passes it on.

It has no content: no prompt, voxel, tag or name. Canaries have no line, nor has what never reached a model.
"""

import contextlib
import os
import time

from medimageparse_contract.access_lines import OFF, encode_line, now

from medimageparse_serving.step_environment import ACCESS_LOG
from medimageparse_serving.triton.counts import Work

STDERR = 2


def line_of(model: str, work: Work, form: str) -> str:
    """What is told of a request that has ended: text, or JSON."""
    told: dict[str, object] = {"time": now(), "level": "info", "request_id": work.request_id, "model": model}
    told |= {"outcome": work.outcome} | ({"refused_by": work.refused_by or model} if work.is_refused else {})
    told["milliseconds"] = round((time.monotonic() - work.began_s) * 1000, 1)
    known = {"slices": work.n_slices, "prompts": work.n_prompts}  # 0: it ended before they were counted
    return encode_line(told | {name: number for name, number in known.items() if number}, form)


def write(model: str, work: Work) -> None:
    form = os.environ.get(ACCESS_LOG, OFF)
    if form == OFF or work.is_canary:
        return
    # in one piece, so that the lines of several processes do not mix; tritonserver writes the end of its lines apart
    with contextlib.suppress(OSError):  # a full disk, or nobody who reads
        os.write(STDERR, f"\n{line_of(model, work, form)}\n".encode())
