"""Stands in for the client's connection to a server that serves MedImageParse."""

import base64
import gzip
import io
import json
from types import SimpleNamespace

import nibabel as nib
import numpy as np
from medimageparse_contract.catalogue import rows_of_presets
from PIL import Image, ImageOps

IMAGE_MODELS = ("medimageparse", "medimageparse_stream")


class FakeTriton:
    """Stands in for the client's GrpcServer and HttpServer.

    Of a volume label k is where it equals k; alone, prompt k is 0.8 there and 0.6 at label k + 1. Of an image the
    first, third, ... prompt is as probable as the image is red, and the others as it is not; recognition finds
    `recognized`.
    """

    requests: list[dict[str, str | bool | float]] = []
    images: list[bytes] = []
    ids: list[str] = []
    failures: dict[str, Exception] = {}  # prompt -> what to raise
    missing_output = ""
    is_loaded = True
    models = ("medimageparse_3d", "medimageparse")
    recognized = ("left lung", "right lung")
    tiles = 1
    voxel_ml = 0.002
    sides_known = True
    warnings = ()
    told: dict[str, dict[str, object]] = {}  # prompt -> what its report says besides
    stopped: list[bool] = []  # of each stream, whether it was cancelled
    odd_progress: dict[str, object] = {}

    def __init__(self, url, **options):
        self.url, self.options, self.is_open = url, options, True

    def close(self):
        self.is_open = False

    def is_live(self):
        if self.url.startswith("nobody"):
            raise ConnectionRefusedError(111, "Connection refused")
        return True

    def is_ready(self, model):
        return self.is_loaded and model in self.models

    def metadata(self):
        return {"name": "triton", "version": "2.51.0"}

    def stream(self, model, inputs, outputs, *, limit_s, request_id):
        """Its slices one by one: from the first on the first prompt is found, and so on."""
        is_cancelled = True
        try:
            answer = self.infer(model, inputs, outputs, limit_s=limit_s, request_id=request_id)
            prompts = prompts_of(self.requests[-1])
            scores = None if model in IMAGE_MODELS else answer.as_numpy("scores")
            part, n = ("tiles", self.tiles) if scores is None else ("slices", scores.shape[1])
            for done in range(n + 1):
                told = {f"{part}_done": done, part: n, "prompts_found": prompts[:done]} | self.odd_progress
                yield FakeAnswer("", progress=np.array([json.dumps(told)], np.object_))
            is_cancelled = False
            yield answer
        finally:
            self.stopped.append(is_cancelled)

    def infer(self, model, inputs, outputs, *, limit_s, request_id):
        self.ids.append(request_id)
        sent = dict(inputs)
        image = sent.pop("image")
        sent = {name: value.decode() if isinstance(value, bytes) else value for name, value in sent.items()}
        self.requests.append(sent | {"model": model, "outputs": list(outputs)})
        prompts = prompts_of(sent)
        for prompt in prompts:
            if prompt in self.failures:
                raise self.failures[prompt]
        return self.answer_image(image, prompts) if model in IMAGE_MODELS else self.answer_volume(image, prompts)

    def answer_volume(self, image, prompts):
        sent = self.requests[-1]
        volume = nib.Nifti1Image.from_bytes(gzip.decompress(image) if image[:2] == b"\x1f\x8b" else image)
        labels = np.asanyarray(volume.dataobj).astype(np.uint8)
        labels[labels > len(prompts)] = 0
        alone = np.stack([204 * (labels == k) + 153 * (labels == k + 1) for k in range(1, len(prompts) + 1)], 3)
        alone = alone.astype(np.uint8)
        maps = {"probabilities_file": alone, "masks_file": np.uint8(alone > 127), "uncertainty_file": alone // 4}
        maps["instances_file"] = labels.astype(np.uint16) * 300
        asked = {"uncertainty_file": "draws" in sent, "instances_file": "instances" in sent, sent.get("output"): True}
        made = {name: voxels for name, voxels in maps.items() if asked.get(name)}
        report = self.report(prompts, labels, volume.affine)
        n_slices = volume.shape[report["image"]["slice_axis_stored"]]
        return FakeAnswer(
            self.missing_output,
            nifti_file=self.nifti_file(labels, volume.affine),
            **{name: self.nifti_file(voxels, volume.affine) for name, voxels in made.items()},
            scores=np.full((len(prompts), n_slices), 0.75, np.float32),
            report=np.array([json.dumps(report).encode()], np.object_),
        )

    def nifti_file(self, voxels, affine):
        nifti = gzip.compress(nib.Nifti1Image(voxels, affine).to_bytes())
        return np.array([json.dumps({"data": base64.b64encode(nifti).decode()}).encode()], np.object_)

    def report(self, prompts, labels, affine):
        counts = np.bincount(labels.ravel(), minlength=len(prompts) + 1).tolist()
        return {
            "prompts": [
                {
                    "text": prompt,
                    "present": counts[label] > 0,
                    "highest_score": 0.75,
                    "voxels": counts[label],
                    "volume_ml": counts[label] * self.voxel_ml if self.voxel_ml else None,
                    "truncated": len(prompt) > 100,
                }
                | self.told.get(prompt, {})
                for label, prompt in enumerate(prompts, start=1)
            ],
            "warnings": list(self.warnings),
            "milliseconds": {"total": 12.4},
            "image": {
                "stored_orientation": "LAS" if self.sides_known else None,
                "affine": affine.tolist(),
                "sides_known": self.sides_known,
                "orientation": "LAS",
                "slice_axis_stored": 2,
                "intensity": {"used": "none", "bounds": None},
            },
        }

    def answer_image(self, image, prompts):
        self.images.append(image)
        picture = Image.open(io.BytesIO(image))
        red = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))[..., 0]
        texts = prompts or self.recognized
        maps = np.array([red if k % 2 == 0 else 255 - red for k in range(len(texts))], np.uint8)
        maps = maps.reshape(len(texts), *red.shape)
        features = {"data": base64.b64encode(maps.tobytes()).decode(), "shape": maps.shape, "dtype": "uint8"}
        report = {
            "prompts": [self.describe(text, probability) for text, probability in zip(texts, maps, strict=True)],
            "warnings": list(self.warnings),
            "rejected": [] if prompts else [{"text": "heart", "p_value": 0.01, "reason": "p-value too low"}],
            "image": {
                "exif_orientation": picture.getexif().get(274, 1),
                "intensity": {"used": "none", "bounds": None},
                "tiles": self.tiles,
            },
        }
        return FakeAnswer(
            self.missing_output,
            image_features=np.array([json.dumps(features).encode()], np.object_),
            probabilities=maps,
            text_features=np.array([b"lung"] * len(texts), np.object_),
            report=np.array([json.dumps(report).encode()], np.object_),
        )

    def describe(self, text, probability):
        rows, columns = np.nonzero(probability > 127)
        box = [[int(end(rows)), int(end(columns))] for end in (np.min, np.max)] if rows.size else None
        return {
            "text": text,
            "present": rows.size > 0,
            "area_pixels": rows.size,
            "box_pixels": box,
            "highest_probability": int(probability.max()) / 255,
            "category": "lung",
            "p_value": 0.5 if text == "left lung" else None,
            "truncated": len(text) > 100,
        }


class FakeAnswer:
    def __init__(self, missing, **arrays):
        self.arrays = arrays | {missing: None}

    def as_numpy(self, name):
        return self.arrays[name]

    def get_response(self):
        names = [name for name, array in self.arrays.items() if array is not None]
        return SimpleNamespace(outputs=[SimpleNamespace(name=name) for name in names])


def prompts_of(sent):
    if "preset" in sent:
        return [row.prompt for row in rows_of_presets(sent["preset"], "3d")]
    return sent["text"].split(" & ") if "text" in sent else []
