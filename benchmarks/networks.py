"""The networks alone, by part: the originals' schedule against ours in PyTorch, ONNX Runtime and OpenVINO, in one run.

Each round runs every way once, one after the other, so that a change of the machine's speed meets all of them;
`times_original` is the median over the rounds of this way's seconds over the original's. Weights are random and the
same for all; the warm-up gives all the same noise and compares what comes out.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence

import original_schedule as schedule
import techniques
import torch
from medimageparse.class_embeddings import class_token_ids
from medimageparse.served_tensors import CLASSES
from medimageparse.variants import VARIANTS
from processes import OtherLoad
from recording import Row, conditions, parser_of, record, results_of
from served import has_bf16

ORIGINAL = "original"
ON_CPU = (ORIGINAL, "eager-fp32", "onnxruntime-fp32", *(["openvino-bf16"] if has_bf16() else []))
NOT_COMPARED = {"label_agreement": "", "mask_iou": "", "relative_l2": ""}
EXTRA_PROMPT, CLASS_NAMES = "each extra prompt", "class names, once per request"
PACKAGES = ("torch", "onnxruntime", "openvino", "onnx", "numpy")


@torch.no_grad()
def class_name_seconds(setup: techniques.Setup) -> float:
    """What the 3D original spends on class names: one class measured, all counted."""
    input_ids = torch.from_numpy(class_token_ids()[0][0])
    started = time.perf_counter()
    schedule.class_embedding(setup.modules[techniques.TEXT].text_encoder, input_ids)
    return len(CLASSES) * (time.perf_counter() - started)


def measure_model(setup: techniques.Setup, options: argparse.Namespace) -> Iterator[Row]:
    """The rows of one model."""
    is_3d = setup.variant.model == "medimageparse_3d"
    n_slices, prompts = (options.slices, options.prompts) if is_3d else (1, options.prompts_2d)
    few, many = min(prompts), max(prompts)
    ways = {name: techniques.TECHNIQUES[name][-1](setup) for name in ON_CPU}
    here, others = conditions(PACKAGES), OtherLoad(os.getpid())
    measured = list(techniques.measure(setup, ways, n_slices, prompts, options.rounds))
    times = {(name, n_prompts, part): seconds for name, n_prompts, part, seconds, _ in measured}
    if few < many:
        for name in ways:
            pairs = zip(times[name, few, techniques.ALL], times[name, many, techniques.ALL], strict=True)
            extra = [(most - least) / (many - few) for least, most in pairs]
            measured.append((name, many, EXTRA_PROMPT, extra, NOT_COMPARED))
    if is_3d:
        measured.append((ORIGINAL, few, CLASS_NAMES, [class_name_seconds(setup)], NOT_COMPARED))
    times = {(name, n_prompts, part): seconds for name, n_prompts, part, seconds, _ in measured}
    here |= {"others_share": others.share()}
    for name, n_prompts, part, seconds, parity in measured:
        sizes, compared = (n_slices, n_prompts, part), NOT_COMPARED if name == ORIGINAL else parity
        yield here | techniques.columns(setup, name, sizes, seconds, times[ORIGINAL, n_prompts, part]) | compared


def summary(row: Row) -> str:
    line = f"{row['model']:<17}{row['prompts']:>2} prompts  {row['part']:<30}{row['way']:<28}"
    line += f"{row['median_s']:10.4f} s  {row['times_original']:6.3f} of the original"
    if row["label_agreement"] == "":
        return line
    return f"{line}, {100 * row['label_agreement']:.2f} % of pixels equal, IoU {row['mask_iou']:.4f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=("3d", "2d"), default=["3d", "2d"])
    parser.add_argument("--slices", type=int, default=1, help="of a batch in 3D")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 15], metavar="N", help="in 3D")
    parser.add_argument("--prompts-2d", type=int, nargs="+", default=[1], metavar="N", help="in 2D, decoded together")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    options = parser.parse_args(arguments)
    results = results_of(options, "schedules")
    torch.set_num_threads(options.threads)
    for model in options.models:
        variant = VARIANTS[options.variant + {"3d": "", "2d": "_2D"}[model]]
        record(results, measure_model(techniques.Setup("cpu", variant, options), options), summary)


if __name__ == "__main__":
    main()
