"""The networks alone, by part: the originals' schedule against ours in PyTorch, ONNX Runtime and OpenVINO, in one run.

Each round runs every way once, one after the other, so that a change of the machine's speed meets all of them;
`times_original` is the median over the rounds of this way's seconds over the original's. Weights are random and the
same for all; the warm-up gives all the same noise and compares what comes out. On a GPU (gpu_networks.py) the original
takes turns with one technique after the other, and the two ceilings of the machine come first. On a CPU the machine's
rate of matrix products is measured before and after, and `share_of_rate` is what our networks' arithmetic would take at
that rate over what it took. No server is needed.
"""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence

import original_schedule
import techniques
import torch
from machine_rate import floor_seconds, needed_gflop, product_gflops
from medimageparse.variants import PUBLISHED, VARIANTS
from medimageparse_contract.categories import CLASSES
from recording import Row, conditions, median, p95, parser_of, record, results_of
from techniques import ALL, IMAGE, MASKS, N_TOKENS, TECHNIQUES, TEXT, Setup, Way

ORIGINAL, EXTRA_PROMPT, CLASS_NAMES = "original", "each extra prompt", "class names, once per request"
NOT_COMPARED = {"label_agreement": "", "mask_iou": "", "relative_l2": ""}
PACKAGES = ("torch", "onnxruntime", "openvino", "onnx", "numpy")


@torch.no_grad()
def class_name_seconds(setup: Setup) -> float:
    """What the 3D original spends on class names: one class measured, all counted."""
    from medimageparse.class_embeddings import class_token_ids

    input_ids, started = torch.from_numpy(class_token_ids()[0][0]), time.perf_counter()
    original_schedule.class_embedding(setup.modules[TEXT].text_encoder, input_ids)
    return len(CLASSES) * (time.perf_counter() - started)


def floor_gflop(n_slices: int, n_prompts: int, part: str) -> float:
    """The arithmetic that the published 3D sizes need, spec sections 7 and 10, and NOTES.md for the last convolution.

    Of that 77.3 GFLOP are taken out of the image encoder; the decoder has 25.4 and 0.16 per prompt more. What it had
    before is an estimate: torch's counter found 19.9 GFLOP for 1 prompt and 61.5 for 15.
    """
    text, image = 5.85 * n_prompts * N_TOKENS / 77, (569.9 - 77.3) * n_slices
    masks = (17 + 25.4 + (2.7 + 0.16) * n_prompts) * n_slices
    return {TEXT: text, IMAGE: image, MASKS: masks, ALL: text + image + masks}[part]


def gpu() -> dict[str, object]:
    """Its name, and its ceilings: a large bf16 matrix product on random data, and a copy, read and written."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source, target = (torch.randn(2**30, device="cuda") for _ in range(2))
    product_s, copy_s = median_seconds(lambda: a @ b), median_seconds(lambda: target.copy_(source))
    found = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return found | {"bf16_tflops": 2 * 8192**3 / product_s / 1e12, "copy_tb_s": 8 * 2**30 / copy_s / 1e12}


def median_seconds(work: Callable[[], object]) -> float:
    marks = []
    for _ in range(25):
        marks.append(techniques.mark("cuda"))
        work()
    torch.cuda.synchronize()
    return median(techniques.seconds_between(marks[5:]))  # the first warm up


def used_gb(setup: Setup, way: Way, n_slices: int, n_prompts: int) -> float:
    """All that is in use on the GPU once a technique has run twice, PyTorch's own fp32 weights among it."""
    torch.cuda.empty_cache()
    for _ in range(2):
        techniques.run_parts(setup, way, techniques.make_request(setup, n_slices, n_prompts))
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e9


def rows_of(names: Sequence[str], setup: Setup, here: Row, n_sets: int, options: Namespace) -> Iterator[Row]:
    """The rows of some ways that take turns, the original among them."""
    is_3d, is_gpu, started = setup.variant.model == "medimageparse_3d", setup.device == "cuda", time.perf_counter()
    ways, more = {name: TECHNIQUES[name][-1](setup) for name in names}, {}
    here = dict(here)
    if not is_gpu:  # psutil may be missing there
        from processes import OtherLoad

        others = OtherLoad(os.getpid())
    prepare_s, prompts = time.perf_counter() - started, options.prompts if is_3d else options.prompts_2d
    few, many = min(prompts), max(prompts)
    for n_slices in options.slices if is_3d else [1]:
        if is_gpu:
            more = {"gpu_used_gb": used_gb(setup, ways[names[-1]], n_slices, many), "prepare_s": prepare_s}
        before = {} if is_gpu else product_gflops()
        measured = techniques.measure(setup, ways, n_slices, prompts, options.rounds, n_sets)
        if not is_gpu:  # the machine's speed changes: the mean of before and after
            rates = {name: (before[name] + gflops) / 2 for name, gflops in product_gflops().items()}
            gflop = {n: needed_gflop(setup, techniques.make_request(setup, n_slices, n)) for n in prompts}
        for name in ways if few < many else []:
            pairs = zip(measured[name, few, ALL][0], measured[name, many, ALL][0], strict=True)
            extra = [(most - least) / (many - few) for least, most in pairs]
            measured[name, many, EXTRA_PROMPT] = extra, NOT_COMPARED
        if is_3d and not is_gpu:
            measured[ORIGINAL, few, CLASS_NAMES] = [class_name_seconds(setup)], NOT_COMPARED
        if not is_gpu:
            here["others_share"] = others.share()
        for (name, n_prompts, part), (seconds, parity) in measured.items():
            sizes, of_original = (n_slices, n_prompts, part), measured[ORIGINAL, n_prompts, part][0]
            row = here | techniques.columns(setup, name, sizes, seconds, of_original)
            row |= NOT_COMPARED if name == ORIGINAL else parity
            if not is_gpu:
                floor_s = floor_seconds(part, gflop[n_prompts], rates, TECHNIQUES[name][2])
                row |= rates | {"share_of_rate": floor_s / median(seconds) if floor_s else ""}
            if is_gpu:
                row |= {"p95_s": p95(seconds), "times_floor": "", **more}
                if setup.variant is PUBLISHED and part != EXTRA_PROMPT:
                    row["times_floor"] = median(seconds) * here["bf16_tflops"] * 1000 / floor_gflop(*sizes)
            yield row


def all_rows(options: Namespace) -> Iterator[Row]:
    here, is_gpu = conditions(PACKAGES) | (gpu() if options.device == "cuda" else {}), options.device == "cuda"
    for model in options.models:
        setup = Setup(options.device, VARIANTS[options.variant + {"3d": "", "2d": "_2D"}[model]], options)
        others = [name for name in options.techniques if name != ORIGINAL]
        for group in [[name] for name in others] if is_gpu else [others]:
            rows = rows_of([ORIGINAL, *group], setup, here, options.input_sets, options)
            yield from (row for row in rows if row["way"] != ORIGINAL or group[0] == others[0])


def summary(row: Row) -> str:
    line = f"{row['model']:<17}{row['slices']:>2} slices {row['prompts']:>2} prompts  {row['part']:<30}{row['way']:<28}"
    line += f"{row['median_s']:10.4f} s  {row['times_original']:6.3f} of the original"
    if row["label_agreement"] != "":
        line += f", {100 * row['label_agreement']:.2f} % of pixels equal, IoU {row['mask_iou']:.4f}"
    if row.get("share_of_rate"):
        line += f", {row['share_of_rate']:.2f} of the rate"
    return line + (f", {row['times_floor']:.1f} x floor, {row['gpu_used_gb']:.1f} GB" if row.get("times_floor") else "")


def main(arguments: Sequence[str] | None = None, name: str = "schedules", **defaults: object) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    parser.add_argument("--techniques", nargs="+", choices=TECHNIQUES, metavar="NAME", help=", ".join(TECHNIQUES))
    parser.add_argument("--models", nargs="+", choices=("3d", "2d"), default=["3d", "2d"])
    parser.add_argument("--slices", type=int, nargs="+", default=[1], metavar="N", help="of a batch in 3D")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 15], metavar="N", help="in 3D")
    parser.add_argument("--prompts-2d", type=int, nargs="+", default=[1], metavar="N", help="in 2D, decoded together")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--input-sets", type=int, default=1, metavar="N", help="taken in turn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    parser.set_defaults(**defaults)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device; --device cpu --variant TINY tries the script out")
    if options.techniques is None:
        from served import has_bf16

        options.techniques = ["eager-fp32", "onnxruntime-fp32", *(["openvino-bf16"] if has_bf16() else [])]
    torch.set_num_threads(options.threads)
    record(results_of(options, name), all_rows(options), summary)


if __name__ == "__main__":
    main()
