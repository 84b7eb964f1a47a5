"""Image and prompts -> masks, scores, report."""

from typing import Any

from medimageparse_serving.triton.pipeline import Calls, Pipeline
from medimageparse_serving.triton.tensors import Inputs, as_tensors
from medimageparse_serving.volume.segment import segment_volume

DECODED = ("volume_uint8", "volume_fp32", "geometry", "refusal")  # one of the volumes is left out
TOKENIZED = ("input_ids", "attention_mask", "prompts", "truncated", "refusal")


class TritonPythonModel(Pipeline):
    required = ("image", "text")

    def initialize(self, args: dict[str, str]) -> None:
        super().initialize(args)
        self.window_size = int(self.parameters["window_size"])
        usual = 1 if self.runtime.startswith("cpu") else 2
        self.windows_in_flight = int(self.parameters["windows_in_flight"]) or usual

    async def answer(self, inputs: Inputs, calls: Calls, wanted: list[str]) -> dict[str, Any]:
        sent = dict(inputs.tensors)  # passed on as they lie in shared memory
        text = sent.pop("text")
        volumes = await calls.call("decode_model", DECODED, sent.values())
        known: dict[str, Any] = {"geometry": volumes.pop("geometry")}
        known |= await calls.call("tokenize_model", TOKENIZED, [text])
        tokens = as_tensors({name: known.pop(name) for name in ("input_ids", "attention_mask")})
        encoded = await calls.call("text_model", ["text_features"], tokens)
        known["label_slices"], scores = await segment_volume(
            calls,
            volumes,
            encoded["text_features"],
            window_size=self.window_size,
            windows_in_flight=self.windows_in_flight,
            image_size=self.networks["image_size"],
        )
        report = {"networks": self.networks, "window_size": self.window_size}
        known["segment_report"] = report | {"highest_scores": scores.max(1).tolist()}
        names = [name for name in wanted if name != "scores"]
        if not names:  # who asks for scores alone does not wait for a file
            return {"scores": scores}
        return {"scores": scores} | await calls.call("encode_model", names, as_tensors(known))
