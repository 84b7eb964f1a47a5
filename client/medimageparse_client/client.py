"""One connection to a Triton server that serves MedImageParse."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import tritonclient.grpc
import tritonclient.http
from medimageparse_contract.canary import PROMPT_2D, PROMPT_3D, SIDE, SLICES, SPACING_MM, canary_slice
from medimageparse_contract.image_types import ImageType
from medimageparse_contract.models import MODEL_2D, MODEL_3D, PUBLIC_MODELS
from medimageparse_contract.options import Intensity, Orientation

from medimageparse_client.access import key_headers, tls_options
from medimageparse_client.connection import channel_options, proxies_named
from medimageparse_client.errors import InvalidRequest, MedImageParseError, ServerError, translate_errors
from medimageparse_client.formats.nifti import Volume, encode_volume
from medimageparse_client.formats.picture import AnyImage, Window, encode_image
from medimageparse_client.results.image_segmentation import ImageSegmentation, decode_image_answer
from medimageparse_client.results.segmentation import Segmentation, decode_answer

Protocol: TypeAlias = Literal["grpc", "http"]
SliceAxis: TypeAlias = Literal["auto", 0, 1, 2]
# before :// in a url -> protocol, and whether it is encrypted
SCHEMES: dict[str, tuple[Protocol, bool]] = {
    "grpc": ("grpc", False),
    "grpcs": ("grpc", True),
    "http": ("http", False),
    "https": ("http", True),
}
# what an input of the model is made of -> its type there, and numpy's
TENSOR_TYPES = {bytes: ("BYTES", np.object_), bool: ("BOOL", np.bool_), float: ("FP32", np.float32)}


@dataclass(frozen=True)
class Health:
    """What a server says of itself.

    is_live: the server answers
    models: medimageparse_3d (volumes) and medimageparse (images) -> whether it has loaded it and takes requests
    server: its name and version
    problem: why it is not live, or which model did not segment a canary
    """

    is_live: bool
    models: dict[str, bool]
    server: str = ""
    problem: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether a model takes requests now, and none has failed; a server may serve only one of them."""
        return self.is_live and any(self.models.values()) and not self.problem


class Client:
    """A connection to the server, for one thread; use it in a `with` block or call `close`.

    url: "host:port", or with the protocol in front: "http://host:8000", "grpc://host:8001", and with TLS "https://" and
        "grpcs://"
    protocol: "grpc" (default) or "http"
    timeout_s: how long one request may take, in seconds; a large volume on a CPU takes minutes. Then RequestTimeout is
        raised and the server stops its work. Ctrl-C stops it too, but not over HTTP
    ca: PEM file of the authority that signed the server's certificate; left out, the well-known ones are trusted
    certificate, certificate_key: PEM files that show a server with mutual TLS who you are
    api_key: what a proxy before the server asks for (deploy/ has one)
    """

    def __init__(
        self,
        url: str = "localhost:8001",
        *,
        protocol: Protocol | None = None,
        timeout_s: float = 600.0,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        certificate_key: str | Path | None = None,
        api_key: str | None = None,
    ) -> None:
        if not timeout_s > 0 or timeout_s == float("inf"):
            raise ValueError("timeout_s is a finite number of seconds above 0")
        self.protocol, self.url, is_encrypted = split_url(url, protocol)
        if not is_encrypted and (ca or certificate or certificate_key):
            raise ValueError("certificates need https:// or grpcs:// before the host")
        tls = tls_options(self.protocol, ca, certificate, certificate_key) if is_encrypted else {}
        self.timeout_s = timeout_s
        self._triton: Any
        self._call_options: dict[str, Any] = key_headers(api_key, self.url, is_encrypted)
        if self.protocol == "grpc":
            self._triton = tritonclient.grpc
            self._call_options["client_timeout"] = timeout_s
            self._server = self._triton.InferenceServerClient(self.url, channel_args=channel_options(self.url), **tls)
        else:
            self._triton = tritonclient.http
            self._server = self._triton.InferenceServerClient(
                self.url, connection_timeout=timeout_s, network_timeout=timeout_s, **tls
            )

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; over gRPC, a request of another thread is cancelled."""
        self._server.close()

    def segment(
        self,
        volume: Volume,
        prompts: str | Sequence[str],
        *,
        affine: npt.ArrayLike | None = None,
        intensity: Intensity = "auto",
        orientation: Orientation = "LAS",
        slice_axis: SliceAxis = "auto",
    ) -> Segmentation:
        """Segments each prompt in a 3D volume.

        volume: path of a .nii or .nii.gz file, the bytes of one, a nibabel image, or an array [x,y,z] with `affine`
        prompts: one text for each structure, for example "left kidney"; label k is the k-th prompt
        affine: [4,4], voxels to millimetres (RAS+); for arrays, and only for them
        intensity: "auto" windows CT in Hounsfield units (soft tissue), keeps 0..255 and takes percentiles otherwise
        orientation: "LAS" gives one patient one answer however the file is stored; "stored" slices it as stored
        slice_axis: "auto", or the axis (0, 1, 2) of the slices-first volume to slice along
        """
        prompts = check_prompts(prompts)
        data = encode_volume(volume, affine)
        answer = self._infer(
            MODEL_3D,
            {"image": data, "text": encode_prompts(prompts), **encode_options(intensity, orientation, slice_axis)},
            ["nifti_file", "scores", "report"],
        )
        return decode_answer(
            prompts,
            data,
            nifti_file=answer["nifti_file"].item(),
            scores=answer["scores"],
            report=answer["report"].item(),
        )

    def segment_image(
        self,
        image: AnyImage,
        prompts: str | Sequence[str] | None = None,
        *,
        image_type: ImageType | None = None,
        joint: bool | None = None,
        p_value_threshold: float | None = None,
        window: Window | None = None,
    ) -> ImageSegmentation:
        """Segments each prompt in an image, or without prompts all that the published model knows in such an image.

        image: path of a PNG, JPEG or DICOM file, the bytes of one, a PIL image (its pixels as they lie), or a
            uint8 array [H,W] or [H,W,3]; of DICOM files those with one grey slice
        prompts: one text for each structure, for example "left lung"; label k is the k-th prompt
        image_type: kind of image, for example "X-Ray-Chest". With prompts: adds p-values for those it knows. Alone:
            recognition, the prompts of the result are what was found
        joint: True decodes all prompts together, so that one's result depends on the others; False each alone.
            Left out, prompts are decoded together and recognition takes each structure alone, as published
        p_value_threshold: for recognition, leaves out what is less probable than this, for example 0.05
        window: what to see in a CT slice in DICOM: "abdomen", "lung", "pelvis", "liver", "colon" or "pancreas"
        """
        if prompts is None and image_type is None:
            raise InvalidRequest("there is nothing to look for; give prompts, or image_type for all it has")
        prompts = None if prompts is None else check_prompts(prompts)
        encoded = encode_image(image, window)
        inputs = {
            "image": encoded.data,
            "text": None if prompts is None else encode_prompts(prompts),
            "image_type": None if image_type is None else image_type.encode(),
            "joint": None if joint is None else bool(joint),
            "p_value_threshold": None if p_value_threshold is None else float(p_value_threshold),
        }
        answer = self._infer(
            MODEL_2D,
            {name: value for name, value in inputs.items() if value is not None},
            ["image_features", "text_features", "report"],
            may_be_empty=("text_features",),
        )
        return decode_image_answer(
            prompts,
            encoded,
            image_features=answer["image_features"].item(),
            categories=tuple(category.decode() for category in answer["text_features"]),
            report=answer["report"].item(),
        )

    def health(self, *, canary: bool = False) -> Health:
        """Whether the server lives and which models it has loaded; never raises if it cannot be reached.

        A server may serve one model or both: `models` says which are ready, `is_ready` whether any is. A server whose
        steps have crashed may still call itself ready. With `canary` each model that is ready must also segment a tiny
        picture twice, with answers that are equal to the bit, which on a CPU takes seconds.
        """
        try:
            with self._errors_translated():
                is_live = self._server.is_server_live(**self._call_options)
                models = {model: self._server.is_model_ready(model, **self._call_options) for model in PUBLIC_MODELS}
                metadata = self._server.get_server_metadata(**self._call_options, **self._as_json())
        except MedImageParseError as error:
            return Health(is_live=False, models={}, problem=str(error))
        problems = [self._find_problem(model) for model, ready in models.items() if ready] if canary else []
        models |= dict.fromkeys((model for model, problem in problems if problem), False)
        problem = "; ".join(f"{model} does not segment: {problem}" for model, problem in problems if problem)
        return Health(is_live, models, f"{metadata['name']} {metadata['version']}", problem)

    def _find_problem(self, model: str) -> tuple[str, str]:
        """The model, and what is wrong with its answers to the canary; nothing if they are right."""
        try:
            first, second = (self._segment_canary(model) for _ in range(2))
        except MedImageParseError as error:
            return model, str(error)
        return model, "" if np.array_equal(first, second) else "two answers to one request differ"

    def _segment_canary(self, model: str) -> npt.NDArray[Any]:
        """Its answer is checked for shape where it is decoded."""
        picture = np.frombuffer(canary_slice(), np.uint8).reshape(SIDE, SIDE)
        if model == MODEL_2D:
            return self.segment_image(picture, PROMPT_2D).probabilities > 127
        volume, mm = np.repeat(picture.T[..., None], SLICES, axis=2), float(SPACING_MM)
        return self.segment(volume, PROMPT_3D, affine=np.diag([-mm, mm, mm, 1])).label_map

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        """What goes wrong with the connection, as errors of this package; only gRPC knows proxies."""
        with (
            proxies_named(self.url) if self.protocol == "grpc" else nullcontext(),
            translate_errors(self.url, self.timeout_s),
        ):
            yield

    def _as_json(self) -> dict[str, bool]:
        return {"as_json": True} if self.protocol == "grpc" else {}

    def _infer(
        self,
        model: str,
        inputs: Mapping[str, bytes | bool | float],
        output_names: list[str],
        may_be_empty: Sequence[str] = (),
    ) -> dict[str, npt.NDArray[Any]]:
        tensors = []
        for name, value in inputs.items():
            triton_type, numpy_type = TENSOR_TYPES[type(value)]
            tensors.append(self._triton.InferInput(name, [1], triton_type))
            tensors[-1].set_data_from_numpy(np.array([value], numpy_type))
        outputs = [self._triton.InferRequestedOutput(name) for name in output_names]
        with self._errors_translated():
            # the server stops within a window of slices: over gRPC once the call ends, over HTTP at this time-out
            patience_us = math.ceil(self.timeout_s * 1e6)
            answer = self._server.infer(model, tensors, outputs=outputs, timeout=patience_us, **self._call_options)
        arrays = {name: answer.as_numpy(name) for name in output_names}
        for name, array in arrays.items():
            if array is None or not (array.size or name in may_be_empty):
                raise ServerError(f"the server's answer has no {name}")
        return arrays


def split_url(url: str, protocol: Protocol | None) -> tuple[Protocol, str, bool]:
    """The protocol and "host:port" of a url with or without the protocol in front, and whether it asks for TLS."""
    scheme, _, address = url.rpartition("://")
    address = address.rstrip("/")
    if scheme not in ("", *SCHEMES) or protocol not in (None, "grpc", "http"):
        raise ValueError("the protocol is grpc or http, with TLS grpcs or https")
    named, is_encrypted = SCHEMES.get(scheme, (protocol or "grpc", False))
    if protocol and named != protocol:
        raise ValueError("the url names another protocol than protocol=")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("the url is host:port, for example localhost:8001")
    return named, address, is_encrypted


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


def encode_options(intensity: Intensity, orientation: Orientation, slice_axis: SliceAxis) -> dict[str, bytes]:
    """The optional inputs of the model; `output` spares the server the label map as a tensor."""
    options = {"intensity": intensity, "orientation": orientation, "slice_axis": slice_axis, "output": "nifti_file"}
    return {name: str(value).encode() for name, value in options.items()}
