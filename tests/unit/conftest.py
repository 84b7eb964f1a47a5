import base64
import gzip
import json

import nibabel as nib
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from medimageparse_client.volume import decode_nifti
from tritonclient.utils import InferenceServerException, deserialize_bytes_tensor


class FakeTriton:
    """Stands in for tritonclient's InferenceServerClient: label k is where the volume equals k."""

    requests: list[dict[str, str]] = []
    failures: dict[str, Exception] = {}  # prompt -> what to raise
    missing_output = ""
    is_loaded = True
    voxel_ml = 0.002  # None for a file without orientation

    def __init__(self, url, **options):
        self.url, self.options, self.is_open = url, options, True

    def close(self):
        self.is_open = False

    def is_server_live(self, **options):
        if self.url.startswith("nobody"):
            raise ConnectionRefusedError(111, "Connection refused")
        return True

    def is_model_ready(self, name, **options):
        return self.is_loaded

    def get_server_metadata(self, **options):
        return {"name": "triton", "version": "2.51.0"}

    def infer(self, model, inputs, outputs, **options):
        sent = {}
        for tensor in inputs:
            raw = tensor._get_content() if hasattr(tensor, "_get_content") else tensor._get_binary_data()
            sent[tensor.name()] = deserialize_bytes_tensor(raw).item()
        volume = decode_nifti(sent.pop("image"))
        sent = {name: value.decode() for name, value in sent.items()}
        self.requests.append(sent | {"model": model, "outputs": [output.name() for output in outputs]})
        prompts = sent["text"].split(" & ")
        for prompt in prompts:
            if prompt in self.failures:
                raise self.failures[prompt]
        labels = np.asanyarray(volume.dataobj).astype(np.uint8)
        labels[labels > len(prompts)] = 0
        nifti = gzip.compress(nib.Nifti1Image(labels, volume.affine).to_bytes())
        return FakeAnswer(
            self.missing_output,
            nifti_file=np.array([json.dumps({"data": base64.b64encode(nifti).decode()}).encode()], np.object_),
            scores=np.full((len(prompts), volume.shape[2]), 0.75, np.float32),
            report=np.array([json.dumps(self.report(prompts, labels)).encode()], np.object_),
        )

    def report(self, prompts, labels):
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
                for label, prompt in enumerate(prompts, start=1)
            ],
            "image": {
                "stored_orientation": "LAS" if self.voxel_ml else None,
                "intensity": {"used": "none", "bounds": None},
            },
        }


class FakeAnswer:
    def __init__(self, missing, **arrays):
        self.arrays = arrays | {missing: None}

    def as_numpy(self, name):
        return self.arrays[name]


@pytest.fixture
def triton(monkeypatch):
    """The class that both transports of the client use instead of a server, with its settings."""

    class Triton(FakeTriton):
        requests = []
        failures = {
            "refused": InferenceServerException(
                "in ensemble 'medimageparse_3d', the prompt is bad; send another", "StatusCode.INVALID_ARGUMENT"
            ),
            "crash": InferenceServerException("boom\n\nAt:\n  /srv/model.py(3): execute", "StatusCode.INTERNAL"),
            "slow": InferenceServerException("Deadline Exceeded", "StatusCode.DEADLINE_EXCEEDED"),
            "gone": InferenceServerException("socket closed", "StatusCode.UNAVAILABLE"),
        }

    monkeypatch.setattr(tritonclient.grpc, "InferenceServerClient", Triton)
    monkeypatch.setattr(tritonclient.http, "InferenceServerClient", Triton)
    return Triton


@pytest.fixture
def affine():
    """Oblique, left-handed, anisotropic."""
    turn = nib.eulerangles.euler2mat(0.1, 0.2, 0.3)
    return nib.affines.from_matvec(turn @ np.diag([-0.8, 0.7, 2.5]), [10, -20, 30])


@pytest.fixture
def volume():
    """Integers [x,y,z] with a block of 1 and a block of 2 in zeros."""
    volume = np.zeros((10, 12, 8), np.int16)
    volume[2:5, 2:6, 1:4] = 1
    volume[6:9, 7:11, 4:7] = 2
    return volume


@pytest.fixture
def volume_file(tmp_path, volume, affine):
    path = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(volume, affine), path)
    return path
