"""How far a volume is: what the server's stream tells while it works, or its end where there is no stream."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeAlias

from medimageparse_contract.models import MODEL_3D, STREAMS

from medimageparse_client.connection import PROGRESS, Connection, Inputs
from medimageparse_client.results.answer import Answer

STREAM = STREAMS[MODEL_3D]
# gets the slices that are done, how many there are, and the prompts found so far
Progress: TypeAlias = Callable[[int, int, tuple[str, ...]], object]


@dataclass(frozen=True)
class Told:
    """What the output `progress` says."""

    slices_done: int
    slices: int
    prompts_found: tuple[str, ...]


def has_stream(connection: Connection) -> bool:
    """Over HTTP there is none, and a server may lack it."""
    return connection.protocol == "grpc" and connection.is_ready(STREAM)


def infer_watched(connection: Connection, inputs: Inputs, outputs: Sequence[str], progress: Progress) -> Answer:
    """The answer of the stream; what `progress` raises ends the request."""
    with closing(connection.stream(STREAM, inputs, outputs)) as answers:
        for answer in answers:
            if PROGRESS in answer:
                told = answer.json(PROGRESS, Told)
                progress(told.slices_done, told.slices, told.prompts_found)
    return answer
