"""The 3D pipeline: which models it calls, in their order. Two public models run it: for an answer, and for a stream."""

import json
from typing import Any

import numpy as np

from medimageparse_serving.prompts.preset import described, read_preset, texts_of
from medimageparse_serving.refused import Refused
from medimageparse_serving.triton.pipeline import Arrays, Calls, Pipeline
from medimageparse_serving.triton.tensors import Inputs, as_tensors, unpack
from medimageparse_serving.volume.geometry import Geometry
from medimageparse_serving.volume.progress import Progress
from medimageparse_serving.volume.report import Segmented
from medimageparse_serving.volume.segment import segment_volume
from medimageparse_serving.volume.wishes import Wishes

DECODED = ("volume_uint8", "volume_fp32", "geometry", "refusal")  # one of the volumes is left out
TO_DECODE = ("image", "intensity", "orientation", "slice_axis")
TOKENIZED = ("input_ids", "attention_mask", "prompts", "truncated", "refusal")


class VolumePipeline(Pipeline):
    """Image and prompts -> masks, scores, report."""

    def initialize(self, args: dict[str, str]) -> None:
        super().initialize(args)
        self.window_size = int(self.parameters["window_size"])
        usual = 1 if self.runtime.startswith("cpu") else 2
        self.windows_in_flight = int(self.parameters["windows_in_flight"]) or usual
        self.max_slice_prompts = int(self.parameters["max_slice_prompts"])
        self.max_draw_prompts = int(self.parameters["max_draw_prompts"])
        self.max_map_bytes = int(self.parameters["max_map_bytes"])

    async def answer(self, inputs: Inputs, calls: Calls, wanted: list[str]) -> Arrays:
        wishes, rows = Wishes(inputs, wanted), read_preset(inputs)  # refused before the work
        sent = {name: tensor for name, tensor in inputs.tensors.items() if name in TO_DECODE}  # as they lie in memory
        volumes = await calls.call("decode_model", DECODED, sent.values())
        known: dict[str, object] = {"geometry": volumes.pop("geometry")}
        of_sets = [tensor for text in texts_of(rows) for tensor in as_tensors({"text": text})]
        texts = of_sets or [inputs.tensors["text"]]
        tokenized = [await calls.call("tokenize_model", TOKENIZED, [text]) for text in texts]
        known |= {name: np.concatenate([tokens[name] for tokens in tokenized]) for name in ("prompts", "truncated")}
        [volume] = volumes.values()
        prompts = [prompt.decode() for tokens in tokenized for prompt in tokens["prompts"]]
        calls.work.n_slices, calls.work.n_prompts = len(volume), len(prompts)
        check_work(len(volume), len(prompts) * wishes.n_draws, self.max_slice_prompts)
        wishes.check(len(prompts), volume.shape, self.max_draw_prompts, self.max_map_bytes)
        if len(texts) > 1:
            wishes.check_passes()
        encoded = [await calls.call("text_model", ["text_features"], tokens_of(tokens)) for tokens in tokenized]
        progress = Progress(prompts, len(volume), calls.tell) if calls.tell else None
        del volume  # the loop takes it out of `volumes`, and its memory goes with the loop
        makers = wishes.prepare(len(prompts), read_geometry(known["geometry"]), self.networks["image_size"])
        label_slices, scores, lost_to = await segment_volume(
            calls,
            volumes,
            [of_pass["text_features"] for of_pass in encoded],
            n_draws=wishes.n_draws,
            window_size=self.window_size,
            windows_in_flight=self.windows_in_flight,
            image_size=self.networks["image_size"],
            progress=progress,
            readers=makers.readers,
        )
        known["label_slices"] = label_slices
        known["segment_report"] = Segmented.of(scores, lost_to, self.networks, self.window_size)
        answer = {"scores": scores} | makers.finish(label_slices)
        names = [name for name in wanted if name in wishes.encoded]
        if names:  # who asks for scores alone does not wait for a file
            answer |= await calls.call("encode_model", [*names, "refusal"], as_tensors(known))
        if rows:
            makers.told |= described(rows)
        if "report" in answer:
            answer["report"] = makers.tell(answer["report"])
        return answer


def tokens_of(tokenized: Arrays) -> list[Any]:
    """What the text encoder takes of it."""
    return as_tensors({name: tokenized[name] for name in ("input_ids", "attention_mask")})


def check_work(n_slices: int, n_prompts: int, limit: int) -> None:
    """Refuses what would hold the networks for too long, before they begin. A draw is as much work as a prompt."""
    if n_slices * n_prompts > limit:
        raise Refused(
            f"{n_slices} slices with {n_prompts} prompts (or prompts x draws) are more than {limit} slices x prompts, "
            "the limit of this server; send fewer prompts in one request, ask for fewer draws, or crop the image"
        )


def read_geometry(packed: Any) -> Geometry:
    """What decode_volume gives."""
    return unpack(Geometry, json.loads(packed.item()))
