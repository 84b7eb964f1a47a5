"""Inner models answer the pipelines of their own server: both know a word that the launcher makes for each start.

tritonserver restricts whole protocols only, so whoever may infer at all could call an inner model with tensors that no
step before it has checked. Without a launcher there is no word, and no check.
"""

import hmac
import json
import os
from typing import Any

from medimageparse_serving.step_environment import GATE, INNER_KEY

PARAMETER = "inner_key"
FRESH = "fresh"
WARMING_UP = "the server is warming up; try again in a few seconds"
CLOSED = "this model is a step of the public ones and takes no requests: ask medimageparse_3d or medimageparse"


def parameters(is_fresh: bool = False) -> dict[str, str]:
    """What a pipeline adds to its requests; fresh ones are computed even if the answer is known."""
    word = os.environ.get(INNER_KEY)
    return ({PARAMETER: word} if word else {}) | ({FRESH: "yes"} if is_fresh else {})


def is_ours(request: Any) -> bool:
    """Whether a request comes from a pipeline or the launcher, or nobody asks for a word."""
    word = os.environ.get(INNER_KEY)
    if not word:
        return True
    sent = sent_parameters(request).get(PARAMETER)
    return isinstance(sent, str) and hmac.compare_digest(sent.encode(errors="replace"), word.encode())


def is_from_launcher(request: Any) -> bool:
    """Whether a request to a public model is a canary, which is to reach every network."""
    return PARAMETER in sent_parameters(request) and bool(os.environ.get(INNER_KEY)) and is_ours(request)


def is_fresh(request: Any) -> bool:
    return FRESH in sent_parameters(request)


def sent_parameters(request: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.parameters() or "{}")
    return found


def is_warming_up() -> bool:
    """Whether the public models, too, answer the launcher alone: tritonserver opens its ports before it is warm."""
    gate = os.environ.get(GATE)
    return bool(gate) and os.path.exists(str(gate))
