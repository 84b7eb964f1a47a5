"""One connection to a Triton server that serves MedImageParse."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt
from medimageparse_contract.canary import PROMPT_2D, PROMPT_3D
from medimageparse_contract.image_types import ImageType
from medimageparse_contract.models import MODEL_2D, MODEL_3D
from medimageparse_contract.options import Intensity, Maps, Orientation

from medimageparse_client.connection import Connection
from medimageparse_client.errors import InvalidRequest, errors_named
from medimageparse_client.formats.nifti import Volume, encode_volume
from medimageparse_client.formats.picture import AnyImage, encode_image, encode_volume_slice
from medimageparse_client.formats.series_input import open_series
from medimageparse_client.formats.voxels import StoredAxis
from medimageparse_client.formats.windows import Window
from medimageparse_client.health import CANARY_AFFINE, Health, ask_health, canary_picture, canary_volume
from medimageparse_client.inputs import (
    SliceAxis,
    check_prompts,
    check_sought,
    encode_image_options,
    encode_options,
    encode_prompts,
    encode_sought,
    name_request,
)
from medimageparse_client.progress import Progress, ask
from medimageparse_client.repeat import RETRIES, RETRY_FOR_S, Repeat
from medimageparse_client.results.answer import Answer
from medimageparse_client.results.image_segmentation import ImageSegmentation, decode_image_answer
from medimageparse_client.results.segmentation import Segmentation, decode_answer, of_series
from medimageparse_client.servers import Inputs
from medimageparse_client.urls import Protocol

OUTPUTS_3D = ("nifti_file", "scores", "report")
OUTPUTS_2D = ("probabilities", "text_features", "report")


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
    retries, retry_for_s: how often a request is sent again at most where the server could not be reached, restarts or
        is full, and the seconds between its tries, all together, which `timeout_s` bounds too; 0 raises at once
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
        retries: int = RETRIES,
        retry_for_s: float = RETRY_FOR_S,
    ) -> None:
        self._repeat = Repeat(retries, retry_for_s)
        self._connection = Connection(
            url,
            protocol,
            timeout_s,
            ca=ca,
            certificate=certificate,
            certificate_key=certificate_key,
            api_key=api_key,
        )
        self.protocol, self.url, self.timeout_s = self._connection.protocol, self._connection.url, timeout_s

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; over gRPC, a request of another thread is cancelled."""
        self._repeat.stop()
        self._connection.close()

    def segment(
        self,
        volume: Volume,
        prompts: str | Sequence[str] | None = None,
        *,
        preset: str | None = None,
        affine: npt.ArrayLike | None = None,
        time_point: int | None = None,
        intensity: Intensity = "auto",
        orientation: Orientation = "LAS",
        slice_axis: SliceAxis = "auto",
        maps: Maps | None = None,
        instances: bool = False,
        draws: int = 1,
        series: int | str | None = None,
        allow_gaps: bool = False,
        resample_tilt: bool = False,
        progress: Progress | None = None,
        request_id: str | None = None,
    ) -> Segmentation:
        """Segments each prompt, or each structure of a preset, in a 3D volume.

        volume: path of a .nii, .nii.gz, .nrrd or .mha file, the bytes of one, a nibabel image, an array [x,y,z] with
            `affine`; with the extra `dicom` a series: a folder or a zip of slices, a multi-frame file, a DicomSeries
        prompts: one text for each structure, for example "left kidney"; label k is the k-th prompt
        preset: in place of prompts a set of the catalogue, for example "CT-Abdomen", several separated by "&", or for
            a DICOM series "auto": those for its modality and body part; the report has the structures' ids
        affine: [4,4], voxels to millimetres (RAS+); for arrays, and only for them
        time_point: which volume of a 4D series to send, from 0; a series without it is refused before it is sent
        intensity: "auto" windows CT in Hounsfield units (soft tissue), keeps 0..255 and takes percentiles otherwise
        orientation: "LAS" gives one patient one answer however the file is stored; "stored" slices it as stored
        slice_axis: "auto", or the axis (0, 1, 2) of the slices-first volume to slice along
        maps: "probabilities" or "masks" of each prompt alone, which may overlap; `mask` of the result is whole then
        instances: whether each thing that hangs together gets a number: `instances` of the result, and in the report
        draws: 1 to 16 samples of the model, which is random: their mean, how far they spread (`uncertainty` of the
            result), and in the report how volumes and masks of the draws differ; not with `instances`
        series: which series of a folder or zip: its number in the list of the refusal, or its UID
        allow_gaps: takes a series with unequal distances from slice to slice; nothing is interpolated
        resample_tilt: takes out the gantry tilt of a series, by linear interpolation
        progress: called while the server works, with the slices done, how many there are, and the prompts found so
            far; if it raises, the request is cancelled. Over HTTP, and by a server without medimageparse_3d_stream, it
            is called once, at the end
        request_id: by which the server's log and the report name the request; it must not name a patient. Left out, one
            is made
        """
        request_id = name_request(request_id)
        prompts = check_sought(prompts, preset)
        opened = open_series(
            volume, series=series, time_point=time_point, allow_gaps=allow_gaps, resample_tilt=resample_tilt
        )
        described = opened.describe(intensity, preset) if opened else {}
        if opened:
            volume, time_point, intensity = opened.volume, None, described["intensity"]
        data = encode_volume(volume, affine, time_point)
        options = encode_options(intensity, orientation, slice_axis, maps, instances, draws)
        inputs = {"image": data, **encode_sought(prompts, preset, opened), **options}
        wanted = [*([maps] if maps else []), *["instances"] * instances, *["uncertainty"] * (draws > 1)]
        outputs = (*OUTPUTS_3D, *(f"{name}_file" for name in wanted))
        with errors_named(request_id):
            answer, progress = self._ask(MODEL_3D, inputs, outputs, progress, request_id)
            result = decode_answer(prompts, data, answer, wanted)
        if progress:
            n_slices = result.scores.shape[1]
            found = zip(result.prompts, result.facts.prompts, strict=True)
            progress(n_slices, n_slices, tuple(prompt for prompt, described in found if described.present))
        return of_series(result, opened, described) if opened else result

    def segment_image(
        self,
        image: AnyImage,
        prompts: str | Sequence[str] | None = None,
        *,
        image_type: ImageType | None = None,
        joint: bool | None = None,
        p_value_threshold: float | None = None,
        tile: bool = False,
        window: Window | None = None,
        slice_number: int | None = None,
        slice_axis: StoredAxis = 2,
        time_point: int | None = None,
        progress: Progress | None = None,
        request_id: str | None = None,
    ) -> ImageSegmentation:
        """Segments each prompt in an image, or without prompts all that the published model knows in such an image.

        image: path of a PNG, JPEG, TIFF, BMP, WebP or DICOM file, the bytes of one, a PIL image (pixels as stored), or
            a uint8 array [H,W] or [H,W,3]; of DICOM files those with one grey slice. With
            slice_number the path or the bytes of a NIfTI file, or a nibabel image
        prompts: one text for each structure, for example "left lung"; label k is the k-th prompt
        image_type: kind of image, for example "X-Ray-Chest". With prompts: adds p-values for those it knows. Alone:
            recognition, the prompts of the result are what was found
        joint: True decodes all prompts together, so that one's result depends on the others; False each alone.
            Left out, prompts are decoded together and recognition takes each structure alone, as published
        p_value_threshold: for recognition, leaves out what is less probable than this, for example 0.05
        tile: looks at a picture over the networks' size in overlapping tiles, at its own pixels; with prompts alone
        window: what to see in a CT slice: "abdomen", "lung", "pelvis", "liver", "colon" or "pancreas"
        slice_number, slice_axis, time_point: which slice of a volume, from 0, along which stored axis; which volume of
            a 4D series. The picture is turned as radiologists look at it; masks can be saved as a NIfTI of the volume
        progress: as of `segment`, called with the tiles that are done, how many there are, and the prompts found so far
        request_id: as of `segment`
        """
        request_id = name_request(request_id)
        if prompts is None and image_type is None:
            raise InvalidRequest("there is nothing to look for; give prompts, or image_type for all it has")
        prompts = None if prompts is None else check_prompts(prompts)
        if slice_number is None:
            encoded = encode_image(image, window)
        else:
            encoded = encode_volume_slice(image, slice_number, slice_axis, window, time_point)
        if tile and encoded.made_of:
            raise InvalidRequest("a slice is sent at the networks' size, so there is nothing to tile; leave tile out")
        text = {} if prompts is None else {"text": encode_prompts(prompts)}
        inputs = {"image": encoded.data, **text, **encode_image_options(image_type, joint, p_value_threshold, tile)}
        with errors_named(request_id):
            answer, progress = self._ask(MODEL_2D, inputs, OUTPUTS_2D, progress, request_id)
            result = decode_image_answer(prompts, encoded, answer)
        if progress:
            facts = result.facts
            found = tuple(prompt.text for prompt in facts.prompts if prompt.present)
            progress(facts.image.tiles, facts.image.tiles, found)
        return result

    def _ask(
        self, model: str, inputs: Inputs, outputs: Sequence[str], progress: Progress | None, request_id: str
    ) -> tuple[Answer, Progress | None]:
        """The answer, and whom the end is still to be told; asked again while the server is away."""
        return self._repeat.ask(
            lambda left_s: ask(self._connection, model, inputs, outputs, progress, left_s, request_id), self.timeout_s
        )

    def health(self, *, canary: bool = False) -> Health:
        """Whether the server lives and which models it has loaded; never raises if it cannot be reached.

        A server may serve one model or both: `models` says which are ready, `is_ready` whether any is. A server whose
        steps have crashed may still call itself ready. With `canary` each model that is ready must also segment a tiny
        picture twice, with answers that are equal to the bit, which on a CPU takes seconds.
        """
        return ask_health(self._connection, self._segment_canary if canary else None)

    def _segment_canary(self, model: str) -> npt.NDArray[Any]:
        """Its answer is checked for shape where it is decoded; nothing is sent again."""
        with self._repeat.once():
            if model == MODEL_2D:
                return self.segment_image(canary_picture(), PROMPT_2D).probabilities > 127
            return self.segment(canary_volume(), PROMPT_3D, affine=CANARY_AFFINE).label_map
