"""NVIDIA's perf_analyzer against both served models: latency and throughput over concurrency, protocol and encoding.

Get the program by `make perf-analyzer`. It sends the same request again and again; `raw` sends the file's bytes,
`base64` its base64. A window is as many requests as are asked for, and perf_analyzer wants three windows that agree.
"""

import base64
import csv
import io
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

import served
from processes import OtherLoad
from recording import REPOSITORY, Row, conditions, find_graphs, parser_of, record, results_of
from served import TritonServer

PERF_ANALYZER = REPOSITORY / "build" / "perf_analyzer" / "perf_analyzer"  # the libraries it needs lie beside it
UNSTABLE = 2  # perf_analyzer's exit status when the windows do not agree; it then reports nothing
Found = dict[str, str] | None
# perf_analyzer's columns in microseconds -> ours in milliseconds
LATENCIES = {"Client Send": "client_send_ms", "Network+Server Send/Recv": "network_and_server_send_recv_ms"}
LATENCIES |= {"Server Queue": "server_queue_ms", "Server Compute Input": "server_input_ms"}
LATENCIES |= {"Server Compute Infer": "server_compute_ms", "Server Compute Output": "server_output_ms"}
LATENCIES |= {"Client Recv": "client_receive_ms", **{f"p{n} latency": f"p{n}_ms" for n in (50, 90, 95, 99)}}


def input_data(file: bytes, text: str, encoding: str) -> dict[str, object]:
    """What perf_analyzer reads: its "b64" is the tensor as it travels, so the bytes follow their length."""
    tensors = {"image": base64.b64encode(file) if encoding == "base64" else file, "text": text.encode()}
    travelling = {name: len(value).to_bytes(4, "little") + value for name, value in tensors.items()}
    return {"data": [{name: {"b64": base64.b64encode(v).decode(), "shape": [1]} for name, v in travelling.items()}]}


def analyze(server: TritonServer, model: str, protocol: str, data: Path, at_once: int, options: Namespace) -> Found:
    """The row of perf_analyzer's report on the model, None if its windows do not agree."""
    report = data.with_suffix(".csv")
    report.unlink(missing_ok=True)
    url = server.grpc_url if protocol == "grpc" else server.http_url
    command = [options.perf_analyzer, "-m", model, "-u", url, "-i", protocol, "--input-data", data, "-f", report]
    for header, key in server.admin_headers.items():  # it reads the server's statistics
        command += ["-H", f"{header}:{key}"]
    command += ["--measurement-mode", "count_windows", "--measurement-request-count", str(options.requests)]
    command += ["--concurrency-range", str(at_once), "--bls-composing-models", ",".join(served.CALLED[model])]
    command += ["--max-trials", str(options.trials), "--stability-percentage", str(options.stability)]
    libraries = {**os.environ, "LD_LIBRARY_PATH": str(Path(options.perf_analyzer).parent)}
    done = subprocess.run(command, env=libraries, capture_output=True, text=True, check=False)
    if done.returncode == UNSTABLE:
        return None
    if done.returncode:
        raise SystemExit(f"perf_analyzer failed with status {done.returncode}:\n{done.stdout}\n{done.stderr}")
    own_table = report.read_text().split("\n\n")[0]  # tables of the models it calls follow
    return next(csv.DictReader(io.StringIO(own_table)))


def rows(model: str, options: Namespace) -> Iterator[Row]:
    """Of a served model, every protocol, encoding and number of requests at once."""
    is_3d = model == "medimageparse_3d"
    sizes = {"slices": options.slices, "prompts": options.prompts} if is_3d else {}
    setting = served.Setting(find_graphs(model, options), model, **sizes)
    request = served.make_request(model, setting.slices, setting.prompts)
    with served.serving(options.work, setting) as server, tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "request.json"
        for protocol, encoding, at_once in itertools.product(("grpc", "http"), ("raw", "base64"), options.concurrency):
            data.write_text(json.dumps(input_data(request.file, "&".join(request.prompts), encoding)))
            here, others = conditions(), OtherLoad(server.process.pid)
            row = analyze(server, model, protocol, data, at_once, options)
            if row is None:
                print(f"{model} {protocol} {encoding} {at_once} at once: three windows never agreed; left out")
                continue
            here |= {"others_share": others.share(), "model": model}  # perf_analyzer's own work among them
            here |= {"variant": options.variant, "runtime": setting.runtime, "precision": "fp32"}
            here |= {"slices": setting.slices, "prompts": setting.prompts, "file_mb": len(request.file) / 1e6}
            here |= {"protocol": protocol, "encoding": encoding, "requests_per_window": options.requests}
            here |= {"stability_percent": options.stability, "concurrency": at_once}
            here |= {"requests_per_s": float(row["Inferences/Second"])}
            yield here | {ours: float(row[theirs]) / 1000 for theirs, ours in LATENCIES.items()}


def summary(row: Row) -> str:
    line = f"{row['model']:<17}{row['protocol']} {row['encoding']:<7}{row['concurrency']} at once: "
    return f"{line}{row['requests_per_s']:8.3f} a second, p50 {row['p50_ms']:9.1f} ms, p95 {row['p95_ms']:9.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--perf-analyzer", default=PERF_ANALYZER, metavar="FILE", help="the program")
    parser.add_argument("--models", nargs="+", choices=served.CALLED, default=list(served.CALLED), metavar="MODEL")
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=5, help="of the 3D model; 2D gets one")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2], metavar="N", help="requests at once")
    parser.add_argument("--requests", type=int, default=2, metavar="N", help="of a window")
    parser.add_argument("--trials", type=int, default=10, metavar="N", help="most windows of a concurrency")
    parser.add_argument("--stability", type=float, default=10, metavar="PERCENT", help="how far windows may differ")
    options = parser.parse_args(arguments)
    if shutil.which(options.perf_analyzer) is None:
        parser.error("perf_analyzer is missing; make perf-analyzer fetches it")
    results = results_of(options, "perf_analyzer")
    for model in options.models:
        record(results, rows(model, options), summary)


if __name__ == "__main__":
    main()
