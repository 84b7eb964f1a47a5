"""What a server says of itself, and whether it segments a canary."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from medimageparse_contract.canary import SIDE, SLICES, SPACING_MM, canary_slice
from medimageparse_contract.models import PUBLIC_MODELS

from medimageparse_client.connection import Connection
from medimageparse_client.errors import MedImageParseError

CANARY_AFFINE = np.diag([-float(SPACING_MM), float(SPACING_MM), float(SPACING_MM), 1])  # LAS

# a model -> what it answers to the canary; raises MedImageParseError
SegmentCanary = Callable[[str], npt.NDArray[Any]]


@dataclass(frozen=True)
class Health:
    """What a server says of itself.

    is_live: the server answers
    models: medimageparse_3d (volumes) and medimageparse (images) -> whether it has loaded it and takes requests
    server: its name and version
    problem: why it is not live, or which model did not segment a canary
    error: the same as the error that a request would have raised
    """

    is_live: bool
    models: dict[str, bool]
    server: str = ""
    problem: str = ""
    error: MedImageParseError | None = field(default=None, repr=False, compare=False)

    @property
    def is_ready(self) -> bool:
        """Whether a model takes requests now, and none has failed; a server may serve only one of them."""
        return self.is_live and any(self.models.values()) and not self.problem


def ask_health(connection: Connection, segment_canary: SegmentCanary | None) -> Health:
    """What `Client.health` gives; with `segment_canary` each model that is ready is asked for it, twice."""
    try:
        is_live = connection.is_live()
        models = {model: connection.is_ready(model) for model in PUBLIC_MODELS}
        server = connection.describe()
    except MedImageParseError as error:
        return Health(is_live=False, models={}, problem=str(error), error=error)
    problems = {}
    if segment_canary:
        problems = {model: find_problem(model, segment_canary) for model, ready in models.items() if ready}
    models |= dict.fromkeys((model for model, problem in problems.items() if problem), False)
    told = (f"{model} does not segment: {problem}" for model, problem in problems.items() if problem)
    return Health(is_live, models, server, "; ".join(told))


def find_problem(model: str, segment_canary: SegmentCanary) -> str:
    """What is wrong with a model's answers to the canary; nothing if they are right."""
    try:
        first, second = (segment_canary(model) for _ in range(2))
    except MedImageParseError as error:
        return str(error)
    return "" if np.array_equal(first, second) else "two answers to one request differ"


def canary_picture() -> npt.NDArray[np.uint8]:
    """[row, column]"""
    return np.frombuffer(canary_slice(), np.uint8).reshape(SIDE, SIDE)


def canary_volume() -> npt.NDArray[np.uint8]:
    """[x, y, z]"""
    return np.repeat(canary_picture().T[..., None], SLICES, axis=2)
