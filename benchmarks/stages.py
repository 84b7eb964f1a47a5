"""Where the time of one request goes: every step of the served pipeline, waiting and copies; report.py draws it.

From Triton's statistics before and after the request, the report, and the same graphs run on the same windows by ONNX
Runtime in this program, where nothing is copied between processes. Windows go through one at a time unless
--windows-in-flight says otherwise: then encoder and decoder overlap, and their times add up to more than the request's.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from direct import onnx_run, openvino_run
from inputs import Case, endless_case
from medimageparse.served_tensors import networks
from medimageparse.variants import VARIANTS
from medimageparse_client.volume import encode_volume
from processes import OtherLoad
from recording import RESULTS, append_row, conditions, median
from served import (
    CPU_RUNTIMES,
    NETWORKS,
    PRECISIONS,
    TIMEOUT_S,
    WORK,
    Setting,
    TritonServer,
    random_graphs,
    serving,
    variant_of,
)
from sliding_window import iterate_windows  # the server's own; served.py has put its folders on the path

from clip_tokenizer import tokenize  # isort: skip

TEXT, IMAGE, MASKS = NETWORKS
WINDOWS, MERGING = "windows", "merging"
PIPELINE, WINDOW = "medimageparse_3d", "segment_window_3d"
CALLED = ("decode_volume", "tokenize_prompts", TEXT, WINDOW, "encode_masks")  # by the pipeline, in this order
PACKAGES = ("onnxruntime", "openvino", "numpy", "nvidia-pytriton")
Nanoseconds = dict[str, dict[str, float]]  # model -> success, queue, compute_input, compute_infer, compute_output


def statistics(server: TritonServer) -> Nanoseconds:
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as triton:
        models = triton.get_inference_statistics(headers=server.admin_headers, as_json=True)["model_stats"]
    kinds = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    return {m["name"]: {kind: float(m["inference_stats"].get(kind, {}).get("ns", 0)) for kind in kinds} for m in models}


def sender(server: TritonServer, protocol: str, file: bytes, text: str) -> Callable[[], float]:
    """Sends the request; returns its seconds until the answer is there."""
    triton = tritonclient.grpc if protocol == "grpc" else tritonclient.http
    url = server.grpc_url if protocol == "grpc" else server.http_url
    timeout = {} if protocol == "grpc" else {"connection_timeout": TIMEOUT_S, "network_timeout": TIMEOUT_S}

    def send() -> float:
        with triton.InferenceServerClient(url, **timeout) as client:
            started = time.perf_counter()
            inputs = []
            for name, value in (("image", file), ("text", text.encode()), ("output", b"nifti_file")):
                inputs.append(triton.InferInput(name, [1], "BYTES"))
                inputs[-1].set_data_from_numpy(np.array([value], np.object_))
            outputs = [triton.InferRequestedOutput(name) for name in ("nifti_file", "scores", "report")]
            client.infer(PIPELINE, inputs, outputs=outputs)
            return time.perf_counter() - started

    return send


def stages_of(spent: Nanoseconds, wall_ms: float, direct: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds of every stage; with one window in flight they add up to the wall time.

    What a network takes beyond its direct run is the way to its process and back: copies.
    """
    total, queue = ({model: kinds[kind] / 1e6 for model, kinds in spent.items()} for kind in ("success", "queue"))
    waited = (PIPELINE, "decode_volume", "tokenize_prompts", *NETWORKS, "encode_masks")
    pipeline = total[PIPELINE] - queue[PIPELINE] - sum(total[model] for model in CALLED)
    ensemble = total[WINDOW] - total[IMAGE] - total[MASKS]
    return {
        "outside the server": wall_ms - total[PIPELINE],
        "decode the image": total["decode_volume"] - queue["decode_volume"],
        "tokenize": total["tokenize_prompts"] - queue["tokenize_prompts"],
        "text encoder": direct[TEXT],
        "make windows": direct[WINDOWS],
        "image encoder": direct[IMAGE],
        "mask decoder": direct[MASKS] - direct[MERGING],
        "merging": direct[MERGING],
        "copies to networks and back": sum(total[name] - queue[name] - direct[name] for name in NETWORKS),
        "calls between the steps": pipeline - direct[WINDOWS] + ensemble,
        "encode the result": total["encode_masks"] - queue["encode_masks"],
        "waiting in queues": sum(queue[model] for model in waited),
    }


class DirectRun:
    """Windows and the three graphs in this program: milliseconds of each for the same volume and prompts."""

    def __init__(self, graphs: Path, setting: Setting, case: Case) -> None:
        files = {name: graphs / name / "1" / "model.onnx" for name in NETWORKS}
        self.networks = {name: onnx_run(file, setting.threads) for name, file in files.items()}
        if setting.runtime == "cpu-bf16":
            self.networks[IMAGE] = openvino_run(files[IMAGE], setting.threads)
        variant = VARIANTS[variant_of(graphs)]
        self.features = [spec.name for spec in networks(variant)[IMAGE].outputs]
        self.size, self.window_size = variant.image_size, setting.window_size
        self.slices = np.ascontiguousarray(np.asarray(case.volume.dataobj).transpose(2, 1, 0))
        self.tokens = tokenize(case.prompts)[:2]

    def timed(self, name: str, arrays: Sequence[np.ndarray], outputs: list[str]) -> tuple[float, list[np.ndarray]]:
        started = time.perf_counter()
        found = self.networks[name](arrays, outputs)
        return 1000 * (time.perf_counter() - started), found

    def run(self) -> dict[str, float]:
        """Merging is what the mask decoder takes longer when asked for labels instead of mask logits."""
        spent = dict.fromkeys((WINDOWS, *NETWORKS, MERGING), 0.0)
        started = time.perf_counter()
        windows = [window for _, window in iterate_windows(self.slices, self.window_size, self.size)]
        spent[WINDOWS] = 1000 * (time.perf_counter() - started)
        spent[TEXT], text = self.timed(TEXT, self.tokens, ["text_features"])
        for window in windows:
            ms, features = self.timed(IMAGE, [window], self.features)
            spent[IMAGE] += ms
            all_ms, _ = self.timed(MASKS, [*features, *text], ["label_slices", "scores"])
            without_ms, _ = self.timed(MASKS, [*features, *text], ["mask_logits"])
            spent[MASKS] += all_ms
            spent[MERGING] += max(0.0, all_ms - without_ms)
        return spent


def measure(setting: Setting, case: Case, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """For each protocol the wall time, the stages and the networks' direct run: medians over the requests."""
    file, text = encode_volume(case.volume), "&".join(case.prompts)
    with serving(options.work, setting) as server:
        assert server.process is not None
        direct_run = DirectRun(setting.graphs, setting, case)
        for protocol in options.protocols:
            send = sender(server, protocol, file, text)
            send(), direct_run.run()
            others, walls, directs, stages = OtherLoad(server.process.pid), [], [], []
            for _ in range(options.requests):
                before = statistics(server)
                walls.append(1000 * send())
                after = statistics(server)
                spent = {
                    model: {k: after[model][k] - before[model][k] for k in kinds} for model, kinds in after.items()
                }
                directs.append(direct_run.run())
                stages.append(stages_of(spent, walls[-1], directs[-1]))
            networks_ms = [sum(direct[name] for name in NETWORKS) for direct in directs]
            yield {
                "protocol": protocol,
                "others_share": others.share(),
                "wall_ms": median(walls),
                "networks_direct_ms": median(networks_ms),
                "times_direct": median([wall / direct for wall, direct in zip(walls, networks_ms, strict=True)]),
                "stages": {name: median([of_one[name] for of_one in stages]) for name in stages[0]},
            }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="for graphs and the served copy")
    parser.add_argument("--variant", default="PUBLISHED", help="DEMO or TINY try the script out")
    parser.add_argument("--graphs", type=Path, metavar="DIR", help="serve these graphs, not random weights")
    parser.add_argument("--runtime", choices=CPU_RUNTIMES, default="cpu")
    parser.add_argument("--protocols", nargs="+", choices=("grpc", "http"), default=["grpc", "http"])
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=15)
    parser.add_argument("--window-size", type=int, default=4, metavar="SLICES")
    parser.add_argument("--windows-in-flight", type=int, default=1, metavar="N", help="2 is what is served on a GPU")
    parser.add_argument("--requests", type=int, default=3, metavar="N", help="timed ones, after a first")
    parser.add_argument("--results", type=Path, metavar="CSV", help="by default results/VARIANT/stages.csv")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    results = options.results or RESULTS / options.variant / "stages.csv"
    graphs = options.graphs or random_graphs(options.work, options.variant, "fp32")
    variant = variant_of(graphs)
    setting = Setting(
        graphs,
        "CPUExecutionProvider",
        options.slices,
        options.prompts,
        options.window_size,
        windows_in_flight=options.windows_in_flight,
        runtime=options.runtime,
    )
    case, here = endless_case(options.slices, options.prompts), conditions(PACKAGES)
    for measured in measure(setting, case, options):
        stages, wall_ms = measured.pop("stages"), measured["wall_ms"]
        title = f"{variant}, {options.slices} slices, {options.prompts} prompts, {measured['protocol']}"
        print(f"{title}: {wall_ms:.1f} ms, {measured['times_direct']:.3f} times the networks alone")
        for stage, ms in stages.items():
            row = here | {
                "variant": variant,
                "runtime": options.runtime,
                "precision": PRECISIONS[options.runtime],
                "volume": case.source,
                "slices": options.slices,
                "prompts": options.prompts,
                "window_size": options.window_size,
                "windows_in_flight": options.windows_in_flight,
                "requests": options.requests,
                **measured,
                "stage": stage,
                "ms": ms,
                "share": ms / wall_ms,
            }
            append_row(results, row)
            print(f"  {stage:<30}{ms:12.2f} ms {100 * ms / wall_ms:7.2f} %")


if __name__ == "__main__":
    main()
