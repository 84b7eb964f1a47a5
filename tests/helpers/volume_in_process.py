"""medimageparse_3d in this process: its pipeline and python steps are the real ones, its networks a function."""

import asyncio
import json
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
from google.protobuf import text_format
from helpers import fake_triton
from helpers.places import ROOT
from medimageparse_contract.models import MODEL_3D
from tritonclient.grpc.model_config_pb2 import ModelConfig

fake_triton.install()

from medimageparse_serving.triton import inner_key  # noqa: E402
from medimageparse_serving.volume.merging import merge  # noqa: E402
from medimageparse_serving.volume.pipeline import VolumePipeline  # noqa: E402
from medimageparse_serving.volume.probabilities import exists, square_probabilities  # noqa: E402

SIZE = 64
STEPS = ("decode_volume", "tokenize_prompts", "encode_masks")
REPOSITORY = ROOT / "model_repository"


def arguments(model, folder=""):
    config = text_format.Parse((REPOSITORY / model / "config.pbtxt").read_text(), ModelConfig())
    parameters = {name: {"string_value": value.string_value} for name, value in config.parameters.items()}
    return {"model_config": json.dumps({"parameters": parameters}), "model_repository": folder, "model_version": "1"}


def step(name):
    spec = spec_from_file_location(name, REPOSITORY / name / "1" / "model.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    model.initialize(arguments(name))

    def answer(inputs):
        return model.respond(fake_triton.Request(fake_triton.InferenceRequest.made[-1].names, **inputs))

    return answer


class VolumeInProcess:
    """network: slices [S,size,size], the draw of each prompt [P] -> mask and edge logits [S,P,16,16], scores [S,P]."""

    def __init__(self, network, folder, monkeypatch):
        monkeypatch.setattr(inner_key, "is_ours", lambda request: True)
        monkeypatch.setattr(fake_triton.InferenceRequest, "made", [])
        answers = {name: step(name) for name in STEPS}
        answers |= {"text_encoder_3d": self.text, "segment_window_3d": self.window}
        monkeypatch.setattr(fake_triton.InferenceRequest, "answers", answers)
        (folder / MODEL_3D / "1").mkdir(parents=True)
        (folder / MODEL_3D / "1" / "networks.json").write_text(json.dumps({"image_size": SIZE}))
        self.network, self.pipeline = network, VolumePipeline()
        self.pipeline.initialize(arguments(MODEL_3D, str(folder / MODEL_3D)))

    def text(self, inputs):
        return self.response(text_features=np.zeros((*inputs["input_ids"].shape, 4), np.float32))

    def window(self, inputs):
        assert len(inputs["noise_fields"]) == len(inputs["text_features"])
        slices = np.tensordot(inputs["digit_values"], inputs["window"], 1)[1:-1]
        masks, edges, scores = self.network(slices, inputs["noise_fields"])
        gates = exists(scores)
        merged = [
            merge(square_probabilities(mask, gate, SIZE), score, gate)
            for mask, gate, score in zip(masks, gates, scores, strict=True)
        ]
        label_slices, lost_to = (np.stack(parts) for parts in zip(*merged, strict=True))
        return self.response(
            label_slices=label_slices, scores=scores, lost_to=lost_to, mask_logits=masks, edge_logits=edges
        )

    def response(self, **arrays):
        return fake_triton.InferenceResponse([fake_triton.Tensor(*pair) for pair in arrays.items()])

    def ask(self, wanted, **inputs):
        """The response; numbers and texts are put into tensors of one element."""
        tensors = {name: tensor_of(value) for name, value in inputs.items()}
        [response] = asyncio.run(self.pipeline.execute([fake_triton.Request(wanted=wanted, **tensors)]))
        return response

    def calls(self, model):
        return [made for made in fake_triton.InferenceRequest.made if made.model == model]


def tensor_of(value):
    if isinstance(value, bool):
        return np.array([value])
    if isinstance(value, int):
        return np.array([value], np.int32)
    return np.array([value.encode() if isinstance(value, str) else value], np.object_)
