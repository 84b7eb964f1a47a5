"""The networks alone, by part: the originals' schedule against ours in PyTorch, ONNX Runtime and OpenVINO, in one run.

Each round runs every way once, one after the other, so that a change of the machine's speed meets all of them;
`times_original` is the median over the rounds of this way's seconds over the original's. Weights are random and the
same for all; the warm-up gives all the same noise and compares what comes out. The machine's rate of matrix products is
measured before and after, and `share_of_rate` is what our networks' arithmetic would take at that rate over what it
took. gpu_networks.py is the same on a GPU. No server is needed.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence

import original_schedule
import techniques
import torch
from machine_rate import FP32, PRODUCTS, floor_seconds, needed_gflop, product_gflops, seconds_of
from medimageparse.variants import VARIANTS
from medimageparse_contract.categories import CLASSES
from processes import OtherLoad
from recording import Row, conditions, median, parser_of, record, results_of
from techniques import ALL, TECHNIQUES, TEXT, Setup

ORIGINAL, EXTRA_PROMPT, CLASS_NAMES = "original", "each extra prompt", "class names, once per request"
NOT_COMPARED = {"label_agreement": "", "mask_iou": "", "relative_l2": ""}
PACKAGES = ("torch", "onnxruntime", "openvino", "onnx", "numpy")


@torch.no_grad()
def class_name_seconds(setup: Setup) -> float:
    """What the 3D original spends on class names: one class measured, all counted."""
    from medimageparse.class_embeddings import class_token_ids

    encoder, input_ids = setup.modules[TEXT].text_encoder, torch.from_numpy(class_token_ids()[0][0]).to(setup.device)
    return len(CLASSES) * seconds_of(lambda: original_schedule.class_embedding(encoder, input_ids), setup.device)


def rows_of(setup: Setup, options: Namespace) -> Iterator[Row]:
    """The rows of a model, whose ways take turns."""
    here, is_3d, others = conditions(PACKAGES), setup.variant.model == "medimageparse_3d", OtherLoad(os.getpid())
    if setup.device == "cuda":
        here |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    ways = {name: TECHNIQUES[name][-1](setup) for name in dict.fromkeys([ORIGINAL, *options.techniques])}
    prompts = options.prompts if is_3d else options.prompts_2d
    few, many = min(prompts), max(prompts)
    rated = PRODUCTS if setup.device == "cuda" or "openvino-bf16" in ways else [FP32]
    for n_slices in options.slices if is_3d else [1]:
        before = [product_gflops(name, setup.device) for name in rated]
        measured = techniques.measure(setup, ways, n_slices, prompts, options.rounds)
        # the machine's speed changes: the mean of before and after
        rates = {name: (was + product_gflops(name, setup.device)) / 2 for name, was in zip(rated, before, strict=True)}
        gflop = {n: needed_gflop(setup, techniques.make_request(setup, n_slices, n)) for n in prompts}
        for name in ways if few < many else []:
            pairs = zip(measured[name, few, ALL][0], measured[name, many, ALL][0], strict=True)
            extra = [(most - least) / (many - few) for least, most in pairs]
            measured[name, many, EXTRA_PROMPT] = extra, NOT_COMPARED
        if is_3d:
            measured[ORIGINAL, few, CLASS_NAMES] = [class_name_seconds(setup)], NOT_COMPARED
        here["others_share"] = others.share()
        for (name, n_prompts, part), (seconds, parity) in measured.items():
            of_original = measured[ORIGINAL, n_prompts, part][0]
            row = here | techniques.columns(setup, name, (n_slices, n_prompts, part), seconds, of_original)
            floor_s = floor_seconds(part, gflop[n_prompts], rates, TECHNIQUES[name][2])
            row |= NOT_COMPARED if name == ORIGINAL else parity
            row |= dict.fromkeys(PRODUCTS, "") | rates
            yield row | {"share_of_rate": floor_s / median(seconds) if floor_s else ""}


def summary(row: Row) -> str:
    line = f"{row['model']:<17}{row['slices']:>2} slices {row['prompts']:>2} prompts  {row['part']:<30}{row['way']:<28}"
    line += f"{row['median_s']:10.4f} s  {row['times_original']:6.3f} of the original"
    if row["label_agreement"] != "":
        line += f", {100 * row['label_agreement']:.2f} % of pixels equal, IoU {row['mask_iou']:.4f}"
    if row["share_of_rate"]:
        line += f", {row['share_of_rate']:.2f} of the rate"
    return line


def main(arguments: Sequence[str] | None = None, **defaults: object) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    parser.add_argument("--techniques", nargs="+", choices=TECHNIQUES, metavar="NAME", help=", ".join(TECHNIQUES))
    parser.add_argument("--models", nargs="+", choices=("3d", "2d"), default=["3d", "2d"])
    parser.add_argument("--slices", type=int, nargs="+", default=[1], metavar="N", help="of a batch in 3D")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 15], metavar="N", help="in 3D")
    parser.add_argument("--prompts-2d", type=int, nargs="+", default=[1], metavar="N", help="in 2D, decoded together")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    parser.set_defaults(**defaults)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device; --device cpu --variant TINY tries the script out")
    if options.techniques is None:
        from served import has_bf16

        options.techniques = ["eager-fp32", "onnxruntime-fp32", *(["openvino-bf16"] if has_bf16() else [])]
    torch.set_num_threads(options.threads)
    for model in options.models:
        setup = Setup(options.device, VARIANTS[options.variant + {"3d": "", "2d": "_2D"}[model]], options)
        record(results_of(options, "schedules"), rows_of(setup, options), summary)


if __name__ == "__main__":
    main()
