"""What a caller asks -> the inputs of the models."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from medimageparse_contract.catalogue import presets, rows_of_presets
from medimageparse_contract.options import MAPS_3D, MAX_DRAWS, Intensity, Maps, Orientation
from medimageparse_contract.request_ids import WAY_OUT, is_request_id, new_request_id

from medimageparse_client.errors import InvalidRequest
from medimageparse_client.formats.body_part import AUTO, sets_of
from medimageparse_client.formats.series import DicomSeries

SliceAxis: TypeAlias = Literal["auto", 0, 1, 2]


def name_request(request_id: str | None) -> str:
    """The caller's id of a request, or a new one; a word that is no id is refused and not repeated."""
    if request_id is None:
        return new_request_id()
    if not isinstance(request_id, str) or not is_request_id(request_id):
        raise InvalidRequest(f"{WAY_OUT}; it must not name a patient")
    return request_id


def check_prompts(prompts: str | Sequence[str]) -> tuple[str, ...]:
    """The prompts, trimmed; refuses what the server could not tell apart."""
    prompts = tuple(prompt.strip() for prompt in ([prompts] if isinstance(prompts, str) else prompts))
    if not prompts:
        raise InvalidRequest("there is no prompt; give at least one, for example 'liver'")
    if not all(prompts):
        raise InvalidRequest("a prompt is empty; leave it out or say what to segment")
    if any("&" in prompt for prompt in prompts):
        raise InvalidRequest("a prompt contains '&', which separates prompts; give each structure its own prompt")
    return prompts


def encode_prompts(prompts: tuple[str, ...]) -> bytes:
    """The input `text` of the model."""
    try:
        return " & ".join(prompts).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequest("a prompt is not valid Unicode; write it in UTF-8") from error


def check_sought(prompts: str | Sequence[str] | None, preset: str | None) -> tuple[str, ...] | None:
    """What the 3D model is to look for: the prompts, trimmed, or a preset alone."""
    if (prompts is None) == (preset is None):
        raise InvalidRequest("give prompts, or a preset that names a set of them, and not both")
    if prompts is not None:
        return check_prompts(prompts)
    if preset != AUTO and not rows_of_presets(preset or "", "3d"):
        known = ", ".join(presets("3d"))
        raise InvalidRequest(f"the preset is unknown; there are {known}, several separated by &, or {AUTO}")
    return None


def encode_sought(prompts: tuple[str, ...] | None, preset: str | None, series: DicomSeries | None) -> dict[str, bytes]:
    """The input `text`, or `preset`, which `check_sought` has seen."""
    if prompts is not None:
        return {"text": encode_prompts(prompts)}
    shown = (series.modality, series.sources[0]) if series else ()
    return {"preset": sets_of(str(preset), *shown).encode()}


def encode_options(
    intensity: Intensity,
    orientation: Orientation,
    slice_axis: SliceAxis,
    maps: Maps | None,
    instances: bool,
    draws: int,
) -> dict[str, bytes | bool | int]:
    """The optional inputs of the model; `output` spares the server the maps as tensors."""
    if maps is not None and maps not in MAPS_3D:
        raise InvalidRequest(f"maps is unknown; give one of {', '.join(MAPS_3D)}, or leave it out")
    output = f"{maps}_file" if maps else "nifti_file"
    options = {"intensity": intensity, "orientation": orientation, "slice_axis": slice_axis, "output": output}
    if isinstance(draws, bool) or not isinstance(draws, int) or not 1 <= draws <= MAX_DRAWS:
        raise InvalidRequest(f"draws is a whole number from 1 to {MAX_DRAWS}")
    if instances and draws > 1:
        raise InvalidRequest("instances are those of one draw; leave draws out, or instances")
    texts = {name: str(value).encode() for name, value in options.items()}
    # what is not asked for is not sent: a server of before knows neither
    return texts | ({"instances": True} if instances else {}) | ({"draws": draws} if draws > 1 else {})


def encode_image_options(
    image_type: str | None, joint: bool | None, p_value_threshold: float | None, tile: bool
) -> dict[str, bytes | bool | float]:
    """The optional inputs of the 2D model; what is not asked for is not sent."""
    options = {
        "image_type": None if image_type is None else image_type.encode(),
        "joint": None if joint is None else bool(joint),
        "p_value_threshold": None if p_value_threshold is None else float(p_value_threshold),
        "tile": True if tile else None,
    }
    return {name: value for name, value in options.items() if value is not None}
