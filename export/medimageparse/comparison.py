"""How graphs and engines are compared with what they were made from: inputs, measures and tolerances. Without torch."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from medimageparse_contract.options import MAX_DRAWS

from medimageparse.errors import ExportError
from medimageparse.variants import Variant

COMPARED_SIZES = ((3, 4, 9), (2, 6, 5), (1, 1, 2))  # slices or groups, prompts, tokens; none is the size that is traced

# Largest error allowed. relative: ||found - expected|| / ||expected||; unequal: share of whole numbers, both made of
# the same masks; margin: how far apart two networks are in what they decide by (probabilities, cosines; see
# decisions.py). Rounding alone gives 1e-6 in fp32 and 2e-3 in fp16; margins are larger behind a cold softmax.
# "widened" is a mask decoder's graph in fp16 that computes in float32: the constants that it was folded into are
# rounded, which gives 2e-5 to 7e-5. An encoder's has the tolerance of fp32.
# Engines are compared with graphs: other_* are shares of draws, pixels and suppressions that fall otherwise because
# they lie within rounding of their limits. "as served" is for two engines that decide for themselves, in medians.
TOLERANCES = {
    "fp32": {"relative": 3e-5, "unequal": 1e-4, "margin": 1e-4}
    | {"other_draws": 1e-3, "other_pixels": 1e-3, "other_winner": 0.1},
    "fp16": {"relative": 0.03, "unequal": 1e-4, "margin": 0.06}
    | {"other_draws": 0.05, "other_pixels": 0.02, "other_winner": 0.25},
    "widened": {"relative": 3e-4, "unequal": 1e-4, "margin": 2e-3},
    "as served": {"relative": 0.3},
}

BOUNDED = ("scores", "similarities")  # probabilities and cosines; near 0 their relative error says nothing

Report = dict[str, dict[str, float]]  # output -> measure -> value


def example_inputs(
    variant: Variant,
    n_slices: int,
    n_prompts: int,
    n_tokens: int,
    run: Callable[[str, list[np.ndarray]], list[np.ndarray]],
) -> dict[str, list[np.ndarray]]:
    """Inputs of the three networks for one made-up request: a window of slices, or an image and groups of prompts.

    run: a network's name and inputs -> its outputs; the mask decoder gets what the encoders make of theirs.
    n_slices: in 2D as many groups, if so many are of equal size.
    """
    random = np.random.default_rng(0)
    input_ids = random.integers(1, variant.vocabulary_size - 2, (n_prompts, n_tokens))
    lengths = random.integers(2, n_tokens + 1, (n_prompts, 1))
    lengths[-1] = n_tokens
    attention_mask = (np.arange(n_tokens) < lengths).astype(np.int64)
    if variant.model == "medimageparse_3d":
        window = blobs(variant.image_size, n_slices + 2, random).astype(np.uint8)[None]
        digit_values = np.ones(1, np.float32)
        inputs = {"text_encoder_3d": [input_ids, attention_mask], "image_encoder_3d": [window, digit_values]}
        features = [array for name in ("image_encoder_3d", "text_encoder_3d") for array in run(name, inputs[name])]
        noise_fields = random.integers(0, MAX_DRAWS, n_prompts)
        return inputs | {"mask_decoder_3d": [*features, noise_fields]}
    pixels = np.ascontiguousarray(blobs(variant.image_size, 3, random).astype(np.uint8).transpose(1, 2, 0)[None])
    inputs = {"text_encoder": [input_ids, attention_mask], "image_encoder": [pixels]}
    token_features, prompt_features = run("text_encoder", inputs["text_encoder"])
    n_groups = n_slices if n_prompts % n_slices == 0 else 1
    prompt_groups = np.arange(n_prompts, dtype=np.int64).reshape(n_groups, -1)
    features = run("image_encoder", inputs["image_encoder"])
    return inputs | {"mask_decoder": [*features, token_features, attention_mask, prompt_features, prompt_groups]}


def blobs(side: int, n: int, random: np.random.Generator) -> np.ndarray:
    """Smooth pictures of 0..255, float32 [n, side, side]."""
    coarse = random.uniform(0, 255, (n, 6, 6))
    positions = np.linspace(0, 5, side)
    enlarge = np.stack([np.interp(positions, np.arange(6), unit) for unit in np.eye(6)], axis=1)  # [side, 6]
    return np.rint(enlarge @ coarse @ enlarge.T).astype(np.float32)


def differences(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """The differences between all outputs of two networks."""
    report = {name: difference(array, found[name]) for name, array in expected.items()}
    return report | {name: margin([expected[name]], [found[name]]) for name in BOUNDED if name in report}


def margin(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> dict[str, float]:
    """How far what two networks decide by is apart: probabilities or cosines. No decision differs by a wider margin."""
    return {"margin": max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))}


def difference(expected: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """How far two results are apart: share of unequal whole numbers, or relative L2 and largest absolute difference."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        raise ExportError(f"expected {expected.dtype} {expected.shape}, found {found.dtype} {found.shape}")
    if np.issubdtype(expected.dtype, np.integer):
        return {"unequal": float(np.mean(expected != found))}
    error = found.astype(np.float64) - expected
    scale = max(float(np.linalg.norm(expected)), 1e-30)
    return {"relative": float(np.linalg.norm(error)) / scale, "largest": float(np.abs(error).max())}


def check(report: Report, network: str, precision: str) -> None:
    """ExportError for the first output whose difference is over the tolerance, or not a number."""
    for name, measured in report.items():
        for measure, tolerance in TOLERANCES[precision].items():
            if measure in measured and not measured[measure] <= tolerance:
                amount = f"{measured[measure]:.2g} ({measure})"
                raise ExportError(f"{network}: {name} differs by {amount}, {precision} allows {tolerance}")


def summary(report: Report) -> str:
    """A report in a few words."""
    relative = max(measured.get("relative", 0) for measured in report.values())
    labels = [f", {100 * m['unequal']:.2g} % of whole numbers differ" for m in report.values() if "unequal" in m]
    return f"relative error at most {relative:.1e}" + "".join(labels)


def largest(reports: Sequence[Mapping[str, Mapping[str, float]]]) -> Report:
    """The largest difference of each output over several comparisons."""
    return {
        name: {measure: max(report[name][measure] for report in reports) for measure in measured}
        for name, measured in reports[0].items()
    }
