"""How far a volume or an image is: what the server's stream tells while it works, or its end where there is none."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeAlias

from medimageparse_contract.models import MODEL_3D, STREAMS

from medimageparse_client.connection import PROGRESS, Connection
from medimageparse_client.results.answer import Answer
from medimageparse_client.servers import Inputs

# gets the slices or tiles that are done, how many there are, and the prompts found so far
Progress: TypeAlias = Callable[[int, int, tuple[str, ...]], object]


@dataclass(frozen=True)
class VolumeTold:
    """What the output `progress` of the 3D model says."""

    slices_done: int
    slices: int
    prompts_found: tuple[str, ...]


@dataclass(frozen=True)
class ImageTold:
    """The same of the 2D model."""

    tiles_done: int
    tiles: int
    prompts_found: tuple[str, ...]


def ask(
    connection: Connection,
    model: str,
    inputs: Inputs,
    outputs: Sequence[str],
    progress: Progress | None,
    limit_s: float,
    request_id: str,
) -> tuple[Answer, Progress | None]:
    """The answer, and whom the end is still to be told: nobody, where the model's stream has told of all.

    Over HTTP there is no stream, and a server may lack it. What `progress` raises ends the request, which may take
    `limit_s` seconds.
    """
    stream = STREAMS[model]
    if progress is None or connection.protocol != "grpc" or not connection.is_ready(stream):
        return connection.infer(model, inputs, outputs, limit_s, request_id), progress
    with closing(connection.stream(stream, inputs, outputs, limit_s, request_id)) as answers:
        for answer in answers:
            if PROGRESS in answer:
                progress(*words_of(answer, model))
    return answer, None


def words_of(answer: Answer, model: str) -> tuple[int, int, tuple[str, ...]]:
    """What a response with progress says."""
    if model == MODEL_3D:
        volume = answer.json(PROGRESS, VolumeTold)
        return volume.slices_done, volume.slices, volume.prompts_found
    image = answer.json(PROGRESS, ImageTold)
    return image.tiles_done, image.tiles, image.prompts_found
