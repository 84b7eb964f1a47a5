"""Does the comparison of an export fail by chance? Random weights of many seeds, exported and compared as `make export`
does, a row for each network; what fails is a row too, with the sentence that the user would read.
"""

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medimageparse.comparison import COMPARED_SIZES
from medimageparse.errors import ExportError
from medimageparse.export_onnx import export_networks
from medimageparse.networks import build_random
from medimageparse.served_tensors import networks
from medimageparse.variants import VARIANTS, Variant
from recording import RESULTS, Row, conditions, parser_of, record

MEASURES = ("relative", "unequal", "margin")
PACKAGES = ("torch", "onnxruntime", "onnx", "numpy")


def differences_of(variant: Variant, seed: int, precision: str, options, folder: Path) -> tuple[str, dict[str, dict]]:
    """The sentence of a comparison that failed, or an empty one; and the manifest of every network that passed."""
    source, failed = f"random weights, seed {seed}", ""
    try:
        export_networks(
            build_random(variant, seed), variant, source, folder, precision, COMPARED_SIZES[: options.examples]
        )
    except ExportError as error:
        failed = str(error)
    manifests = [folder / name / "1" / "manifest.json" for name in networks(variant)]
    written = [json.loads(path.read_text()) for path in manifests if path.exists()]
    return failed, {manifest["network"]: manifest for manifest in written}


def all_rows(options) -> Iterator[Row]:
    for name in options.variants:
        for precision in options.precisions:
            for seed in options.seeds:
                here, started = conditions(PACKAGES), time.perf_counter()
                with tempfile.TemporaryDirectory() as folder:
                    failed, found = differences_of(VARIANTS[name], seed, precision, options, Path(folder))
                here |= {
                    "variant": name,
                    "precision": precision,
                    "seed": seed,
                    "examples": options.examples,
                    "failed": failed,
                }
                here |= {"seconds": time.perf_counter() - started}
                for network, manifest in found.items() or [("", {})]:
                    row = here | {"network": network} | largest(manifest.get("differences", {}))
                    of_widened = largest(manifest.get("differences_widened", {}))
                    yield row | {f"widened_{measure}": value for measure, value in of_widened.items()}


def largest(differences: Mapping[str, Mapping[str, float]]) -> Row:
    """Over all outputs of a network; empty where nothing was compared."""
    return {m: max((of.get(m, 0.0) for of in differences.values()), default="") for m in MEASURES}


def summary(row: Row) -> str:
    line = f"{row['variant']:<13}{row['precision']} seed {row['seed']:>2} {row['seconds']:6.0f} s  {row['network']:<17}"
    return line + (
        str(row["failed"]) or ", ".join(f"{measure} {row[measure]:.1e}" for measure in MEASURES if row["network"])
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, RESULTS / "export_seeds.csv", work=False)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["DEMO", "DEMO_2D"])
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "fp16"), default=["fp32", "fp16"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 21)), metavar="N")
    parser.add_argument("--examples", type=int, default=len(COMPARED_SIZES), metavar="N", help="requests to compare")
    options = parser.parse_args(arguments)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns about what it does not export
    record(options.results, all_rows(options), summary)


if __name__ == "__main__":
    main()
