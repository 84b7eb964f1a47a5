"""NVIDIA's perf_analyzer against both served models: latency and throughput over concurrency, protocol and encoding.

Get the program by `make perf-analyzer`. It sends the same request again and again; `raw` sends the file's bytes,
`base64` its base64. A window is as many requests as are asked for, and perf_analyzer wants three windows that agree.
"""

import argparse
import base64
import csv
import io
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from inputs import endless_case, random_picture
from medimageparse.variants import PUBLISHED
from medimageparse_client.image import encode_image
from medimageparse_client.volume import encode_volume
from medimageparse_demo.repository import demo_repository
from processes import OtherLoad
from recording import REPOSITORY, RESULTS, append_row, conditions
from served import CALLED, VARIANT_SUFFIXES, WORK, TritonServer, random_graphs

PERF_ANALYZER = REPOSITORY / "build" / "perf_analyzer" / "perf_analyzer"  # the libraries it needs lie beside it
UNSTABLE = 2  # perf_analyzer's exit status when the windows do not agree; it then reports nothing
PACKAGES = ("onnxruntime", "openvino", "numpy", "nvidia-pytriton")
# perf_analyzer's columns in microseconds -> ours in milliseconds
LATENCIES = {
    "Client Send": "client_send_ms",
    "Network+Server Send/Recv": "network_and_server_send_recv_ms",
    "Server Queue": "server_queue_ms",
    "Server Compute Input": "server_input_ms",
    "Server Compute Infer": "server_compute_ms",
    "Server Compute Output": "server_output_ms",
    "Client Recv": "client_receive_ms",
    "p50 latency": "p50_ms",
    "p90 latency": "p90_ms",
    "p95 latency": "p95_ms",
    "p99 latency": "p99_ms",
}


def request_files(options: argparse.Namespace) -> dict[str, tuple[bytes, str]]:
    """Model -> the file to send and the prompts."""
    case = endless_case(options.slices, options.prompts)
    return {
        "medimageparse_3d": (encode_volume(case.volume), "&".join(case.prompts)),
        "medimageparse": (encode_image(random_picture()).data, case.prompts[0]),
    }


def input_data(file: bytes, text: str, encoding: str) -> dict[str, object]:
    """What perf_analyzer reads: its "b64" is the tensor as it travels, so the bytes follow their length."""
    content = base64.b64encode(file) if encoding == "base64" else file
    tensors = {"image": content, "text": text.encode()}
    return {"data": [{name: {"b64": travelling(value), "shape": [1]} for name, value in tensors.items()}]}


def travelling(value: bytes) -> str:
    return base64.b64encode(len(value).to_bytes(4, "little") + value).decode()


def analyze(
    server: TritonServer, model: str, protocol: str, data: Path, concurrency: int, options: argparse.Namespace
) -> dict[str, str] | None:
    """The row of perf_analyzer's report on the model, None if its windows do not agree."""
    report = data.with_suffix(".csv")
    report.unlink(missing_ok=True)
    url = server.grpc_url if protocol == "grpc" else server.http_url
    command = [options.perf_analyzer, "-m", model, "-u", url, "-i", protocol, "--input-data", data, "-f", report]
    for header, key in server.admin_headers.items():  # it reads the server's statistics
        command += ["-H", f"{header}:{key}"]
    command += ["--measurement-mode", "count_windows", "--measurement-request-count", str(options.requests)]
    command += ["--concurrency-range", str(concurrency), "--bls-composing-models", ",".join(CALLED[model])]
    command += ["--max-trials", str(options.trials), "--stability-percentage", str(options.stability)]
    libraries = {**os.environ, "LD_LIBRARY_PATH": str(Path(options.perf_analyzer).parent)}
    done = subprocess.run(command, env=libraries, capture_output=True, text=True, check=False)
    if done.returncode == UNSTABLE:
        return None
    if done.returncode:
        raise SystemExit(f"perf_analyzer failed with status {done.returncode}:\n{done.stdout}\n{done.stderr}")
    own_table = report.read_text().split("\n\n")[0]  # tables of the models it calls follow
    return next(csv.DictReader(io.StringIO(own_table)))


def measure(server: TritonServer, options: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """The rows of every model, protocol, encoding and number of requests at once."""
    assert server.process is not None
    files = request_files(options)
    ways = itertools.product(options.models, ("grpc", "http"), ("raw", "base64"), options.concurrency)
    for model, protocol, encoding, concurrency in ways:
        file, text = files[model]
        data = folder / "request.json"
        data.write_text(json.dumps(input_data(file, text, encoding)))
        here, others = conditions(PACKAGES), OtherLoad(server.process.pid)
        row = analyze(server, model, protocol, data, concurrency, options)
        if row is None:
            print(f"{model} {protocol} {encoding} {concurrency} at once: three windows never agreed; left out")
            continue
        yield here | {
            "others_share": others.share(),  # perf_analyzer's own work among them
            "model": model,
            "variant": options.variant,
            "runtime": "cpu",
            "precision": "fp32",
            "slices": options.slices if model == "medimageparse_3d" else 1,
            "prompts": text.count("&") + 1,
            "file_mb": len(file) / 1e6,
            "protocol": protocol,
            "encoding": encoding,
            "requests_per_window": options.requests,
            "stability_percent": options.stability,
            "concurrency": concurrency,
            "requests_per_s": float(row["Inferences/Second"]),
            **{ours: float(row[theirs]) / 1000 for theirs, ours in LATENCIES.items()},
        }


def summary(row: Mapping[str, object]) -> str:
    line = f"{row['model']:<17}{row['protocol']} {row['encoding']:<7}{row['concurrency']} at once: "
    return (
        line + f"{row['requests_per_s']:8.3f} requests a second, p50 {row['p50_ms']:9.1f} ms, p95 {row['p95_ms']:9.1f}"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="for graphs and the served copy")
    parser.add_argument("--perf-analyzer", default=PERF_ANALYZER, metavar="FILE", help="the program")
    parser.add_argument("--variant", choices=("PUBLISHED", "DEMO", "TINY"), default=PUBLISHED.name)
    parser.add_argument("--graphs", type=Path, nargs="+", default=[], metavar="DIR", help="served, not random weights")
    parser.add_argument("--models", nargs="+", choices=CALLED, default=list(CALLED), metavar="MODEL")
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=5, help="of the 3D model; 2D gets one")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2], metavar="N", help="requests at once")
    parser.add_argument("--requests", type=int, default=2, metavar="N", help="of a window")
    parser.add_argument("--trials", type=int, default=10, metavar="N", help="most windows of a concurrency")
    parser.add_argument(
        "--stability", type=float, default=10, metavar="PERCENT", help="how far three windows may differ"
    )
    parser.add_argument("--results", type=Path, metavar="CSV", help="by default results/VARIANT/perf_analyzer.csv")
    options = parser.parse_args(arguments)
    if shutil.which(options.perf_analyzer) is None:
        parser.error("perf_analyzer is missing; make perf-analyzer fetches it")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    results = options.results or RESULTS / options.variant / "perf_analyzer.csv"
    graphs = options.graphs or [
        random_graphs(options.work, options.variant + VARIANT_SUFFIXES[m], "fp32") for m in options.models
    ]
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        repository = demo_repository(Path(folder) / "model_repository", *graphs)
        with TritonServer(repository, runtime="cpu", models=tuple(options.models)) as server:
            for row in measure(server, options, Path(folder)):
                append_row(results, row)
                print(summary(row), flush=True)


if __name__ == "__main__":
    main()
