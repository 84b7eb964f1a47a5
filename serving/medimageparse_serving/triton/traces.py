"""Calls of a request as parts of its trace, where the launcher has requests traced."""

import os
from typing import Any

from medimageparse_serving.step_environment import TRACED


def along(request: Any) -> dict[str, Any]:
    """What each call of this request is made with besides: its trace, or nothing. A trace may not be sampled."""
    return {"trace": request.trace()} if os.environ.get(TRACED) else {}
