"""What lies between the inputs and the outputs of the 3D image encoder and mask decoder."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from torch import Tensor, nn

from .report import Golden, Report


class watched:
    """Collects what the networks' parts return in each window while it is open, named as in the golden files."""

    def __init__(self, modules: Mapping[str, nn.Module]):
        self.seen: dict[str, list[np.ndarray]] = defaultdict(list)
        encoder, decoder = modules["image_encoder_3d"], modules["mask_decoder_3d"].mask_decoder
        self.parts = [
            ("res", encoder.backbone),
            ("transformer_encoder", encoder.pixel_decoder.encoder[-1]),
            ("query_0", decoder.initial_ffn),
            ("combined_0", decoder.initial_self_attention),
            ("mask_embed", decoder.mask_embed),
            ("existence", decoder.classifier),
        ]
        for i, layer in enumerate(decoder.layers):
            self.parts += [(f"query_{i + 1}", layer.ffn), (f"combined_{i + 1}", layer.self_attention)]
            self.parts += [(f"cross_{i}", layer.cross_attention), (f"cls_{i}", layer.classifier_ffn)]
        self.backbone = encoder.backbone
        self.sampling = decoder.sampling

    def keep(self, name: str, value: Tensor | list[Tensor]) -> None:
        if isinstance(value, list):
            for i, tensor in enumerate(value):
                self.keep(f"{name}{i + 2}", tensor)  # res2 to res5
        else:
            self.seen[name].append(value.numpy())

    def __enter__(self) -> dict[str, list[np.ndarray]]:
        def hook(name: str) -> Callable:
            return lambda _module, _inputs, output: self.keep(name, output)

        self.handles = [part.register_forward_hook(hook(name)) for name, part in self.parts]
        self.handles.append(
            self.backbone.register_forward_pre_hook(lambda _m, inputs: self.keep("image_batch", inputs[0]))
        )
        self.handles.append(self.sampling.register_forward_hook(self.keep_draws))
        return self.seen

    def keep_draws(self, _module: nn.Module, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        missed, noise = output[0], inputs[1]
        self.keep("missed", missed)
        self.keep("blocked", noise < missed.unsqueeze(1))

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def check_layers(
    report: Report, seen: Mapping[str, list[np.ndarray]], mask_features: np.ndarray, n_prompts: int
) -> None:
    """Everything between the inputs and the outputs of image encoder and mask decoder."""
    n_layers = sum(name.startswith("cls_") for name in seen)

    def ends(x: np.ndarray) -> np.ndarray:
        return x[[0, -1]]

    def per_prompt(name: str) -> np.ndarray:  # windows of [S * P, ...] -> [D, P, ...]
        return np.concatenate([x.reshape(-1, n_prompts, *x.shape[1:]) for x in seen[name]])

    report.tensor("image_batch_first_last", ends(np.concatenate(seen["image_batch"])))
    report.tensor("res2_first_last", ends(np.concatenate(seen["res2"])))
    for name in ("res3", "res4", "res5"):
        report.tensor(name, np.concatenate(seen[name]))
    tokens = np.concatenate(seen["transformer_encoder"])  # [D, N, C]
    side = int(tokens.shape[1] ** 0.5)
    report.tensor("transformer_encoder", tokens.swapaxes(1, 2).reshape(len(tokens), -1, side, side))
    report.tensor("layer_query", np.stack([per_prompt(f"query_{i}") for i in range(n_layers + 1)]))
    report.tensor("layer_combined", np.stack([per_prompt(f"combined_{i}") for i in range(n_layers + 1)]))
    report.tensor("layer_cross", np.stack([per_prompt(f"cross_{i}") for i in range(n_layers)]))
    report.tensor("layer_cls", np.stack([per_prompt(f"cls_{i}")[:, :, 0] for i in range(n_layers)]))
    report.tensor("object_existence", per_prompt("existence")[:, :, 0, 0].T)
    check_sampling(report, seen, n_layers)
    embeddings = [
        np.concatenate([x.reshape(-1, n_prompts, *x.shape[1:]) for x in seen["mask_embed"][i :: n_layers + 1]])
        for i in range(n_layers + 1)
    ]  # of each prediction round, [D, P, Q, C]
    report.tensor("all_query_mask_logits", np.einsum("dpqc,dchw->dpqhw", embeddings[-1], mask_features))
    for name, s, p in found_in(report.golden, r"layer_mask_logits_s(\d+)_p(\d+)"):
        report.tensor(name, np.stack([np.einsum("qc,chw->qhw", e[s, p], mask_features[s]) for e in embeddings]))


def check_sampling(report: Report, seen: Mapping[str, list[np.ndarray]], n_layers: int) -> None:
    """Boltzmann probabilities and which tokens were hidden, before rows hidden altogether are opened."""
    missed = [np.concatenate(seen["missed"][i::n_layers]) for i in range(n_layers)]  # [D, P, Q, N]
    blocked = [np.concatenate(seen["blocked"][i::n_layers]) for i in range(n_layers)]  # [D, heads, P, Q, N]
    unused = f"the round after the last layer, {n_layers}, is not needed"
    for name, s, i in found_in(report.golden, r"masked_prob_s(\d+)_(\d+)"):
        report.tensor(name, missed[i][s]) if i < n_layers else report.skipped(name, unused)
    for name, i in found_in(report.golden, r"attn_mask_bits_(\d+)"):
        if i == n_layers:
            report.skipped(name, unused)
            continue
        shape = tuple(report.golden[f"attn_mask_shape_{i}"])
        bits = np.unpackbits(report.golden[name], count=int(np.prod(shape))).reshape(shape)
        report.within(name, bits, blocked[i].swapaxes(1, 2))


def found_in(golden: Golden, pattern: str) -> Iterator[tuple]:
    """Names that match, each with its numbers, in numerical order."""
    matches = [match for match in (re.fullmatch(pattern, name) for name in golden) if match]
    return iter(sorted(((m[0], *map(int, m.groups())) for m in matches), key=lambda found: found[1:]))
