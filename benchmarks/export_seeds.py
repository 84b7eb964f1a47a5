"""Does the comparison of an export fail by chance? Random weights of many seeds, exported and compared as `make export`
does, a row for each network; what fails is a row too, with the sentence that the user would read.
"""

import copy
import logging
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx_ir
from medimageparse.comparison import COMPARED_SIZES, example_inputs
from medimageparse.decisions import decisions_of
from medimageparse.errors import ExportError
from medimageparse.export_onnx import compare, graph_of, run_module, to_float16
from medimageparse.networks import build_random
from medimageparse.served_tensors import networks
from medimageparse.variants import VARIANTS, Variant
from recording import RESULTS, Row, conditions, parser_of, record

MEASURES = ("relative", "unequal", "margin")
PACKAGES = ("torch", "onnxruntime", "onnx", "numpy")


def rows_of(variant: Variant, seed: int, options: Namespace) -> Iterator[Row]:
    """The networks of one seed in every precision."""
    modules = build_random(variant, seed)
    sizes = COMPARED_SIZES[-options.examples :]
    examples = [example_inputs(variant, *s, run=lambda part, inputs: run_module(modules[part], inputs)) for s in sizes]
    for name, network in networks(variant).items():
        if options.decoders and not decisions_of(modules[name]):
            continue
        for precision in options.precisions:
            here, started, reports, failed = conditions(PACKAGES), time.perf_counter(), {}, ""
            module = to_float16(copy.deepcopy(modules[name])) if precision == "fp16" else modules[name]
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                onnx_ir.save(graph_of(module, network), path)
                try:
                    reports = compare(modules[name], network, path, [example[name] for example in examples], precision)
                except ExportError as error:
                    failed = str(error)
            row = here | {"variant": variant.name, "network": name, "precision": precision, "seed": seed}
            row |= {"examples": options.examples, "seconds": time.perf_counter() - started, "failed": failed}
            row |= largest(reports.get("differences", {}), "")
            yield row | largest(reports.get("differences_widened", {}), "widened_")


def largest(differences: Mapping[str, Mapping[str, float]], prefix: str) -> Row:
    """Over all outputs of a network; empty where nothing was compared."""
    return {prefix + m: max((of.get(m, 0.0) for of in differences.values()), default="") for m in MEASURES}


def summary(row: Row) -> str:
    line = f"{row['variant']:<13}{row['network']:<17}{row['precision']} seed {row['seed']:>2} {row['seconds']:6.0f} s  "
    shown = [f"{name} {row[name]:.1e}" for m in MEASURES for name in (m, f"widened_{m}") if row[name] != ""]
    return line + (str(row["failed"]) or ", ".join(shown))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, RESULTS / "export_seeds.csv", work=False)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["DEMO", "DEMO_2D"])
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "fp16"), default=["fp32", "fp16"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 21)), metavar="N")
    parser.add_argument("--decoders", action="store_true", help="mask decoders only: encoders decide nothing by chance")
    parser.add_argument("--examples", type=int, default=len(COMPARED_SIZES), metavar="N", help="requests to compare")
    options = parser.parse_args(arguments)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns about what it does not export
    for name in options.variants:
        for seed in options.seeds:
            record(options.results, rows_of(VARIANTS[name], seed, options), summary)


if __name__ == "__main__":
    main()
