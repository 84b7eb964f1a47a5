"""The 3D pipeline: which models it calls, in their order. Two public models run it: for an answer, and for a stream."""

from medimageparse_contract.options import OUTPUTS_3D

from medimageparse_serving.refused import Refused
from medimageparse_serving.triton.pipeline import Arrays, Calls, Pipeline
from medimageparse_serving.triton.tensors import Inputs, as_tensors
from medimageparse_serving.volume.progress import Progress
from medimageparse_serving.volume.report import Segmented
from medimageparse_serving.volume.segment import segment_volume

DECODED = ("volume_uint8", "volume_fp32", "geometry", "refusal")  # one of the volumes is left out
TOKENIZED = ("input_ids", "attention_mask", "prompts", "truncated", "refusal")


class VolumePipeline(Pipeline):
    """Image and prompts -> masks, scores, report."""

    required = ("image", "text")

    def initialize(self, args: dict[str, str]) -> None:
        super().initialize(args)
        self.window_size = int(self.parameters["window_size"])
        usual = 1 if self.runtime.startswith("cpu") else 2
        self.windows_in_flight = int(self.parameters["windows_in_flight"]) or usual
        self.max_slice_prompts = int(self.parameters["max_slice_prompts"])

    async def answer(self, inputs: Inputs, calls: Calls, wanted: list[str]) -> Arrays:
        inputs.choice("output", OUTPUTS_3D)  # refused before the work
        sent = dict(inputs.tensors)  # passed on as they lie in shared memory
        text, output = sent.pop("text"), sent.pop("output", None)
        volumes = await calls.call("decode_model", DECODED, sent.values())
        known: dict[str, object] = {"geometry": volumes.pop("geometry")}
        tokenized = await calls.call("tokenize_model", TOKENIZED, [text])
        tokens = as_tensors({name: tokenized.pop(name) for name in ("input_ids", "attention_mask")})
        known |= tokenized
        [volume] = volumes.values()
        prompts = [prompt.decode() for prompt in tokenized["prompts"]]
        check_work(len(volume), len(prompts), self.max_slice_prompts)
        encoded = await calls.call("text_model", ["text_features"], tokens)
        progress = Progress(prompts, len(volume), calls.tell) if calls.tell else None
        del volume  # the loop takes it out of `volumes`, and its memory goes with the loop
        known["label_slices"], scores, lost_to = await segment_volume(
            calls,
            volumes,
            encoded["text_features"],
            window_size=self.window_size,
            windows_in_flight=self.windows_in_flight,
            image_size=self.networks["image_size"],
            progress=progress,
        )
        known["segment_report"] = Segmented.of(scores, lost_to, self.networks, self.window_size)
        names = [name for name in wanted if name in ("nifti_file", "label_map", "report")]
        if not names:  # who asks for scores alone does not wait for a file
            return {"scores": scores}
        tensors = as_tensors(known) + ([output] if output else [])
        return {"scores": scores} | await calls.call("encode_model", [*names, "refusal"], tensors)


def check_work(n_slices: int, n_prompts: int, limit: int) -> None:
    """Refuses what would hold the networks for too long, before they begin."""
    if n_slices * n_prompts > limit:
        raise Refused(
            f"{n_slices} slices with {n_prompts} prompts are more than {limit} slices x prompts, the limit of this "
            "server; send fewer prompts in one request, or crop the image"
        )
