"""How many volumes an hour the served 3D model takes, by simulation from the stages that stages.py measured.

A volume goes through medimageparse_3d as model_repository/ configures it: the bounded queue, so many volumes at a time,
so many windows of each, every model with its instances. Arrivals are random (Poisson). Rows go into
results/VARIANT/capacity.csv: a sweep over the traffic, and the highest traffic that is served well, for each number of
GPUs and machines. CAPACITY.md says how to read them.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from medimageparse.variants import VARIANTS
from medimageparse_demo import MODEL_REPOSITORY
from recording import RESULTS, append_row, conditions, median, p95
from report import last_run, table
from scipy.special import stdtrit
from simulated_server import (
    BALANCERS,
    DECODE,
    ENCODE,
    IMAGE,
    MASKS,
    NETWORKS,
    ONCE,
    PIPELINE,
    STEPS,
    TEXT,
    TOKENIZE,
    Run,
    Setting,
    Times,
    Traffic,
    simulate,
)
from tritonclient.grpc.model_config_pb2 import ModelConfig

OUTSIDE = "outside the server"
STAGES = {  # of stages.csv -> the model that a simulated volume spends it in
    OUTSIDE: OUTSIDE,
    "decode the image": DECODE,
    "tokenize": TOKENIZE,
    "text encoder": TEXT,
    "make windows": PIPELINE,
    "calls between the steps": PIPELINE,
    "image encoder": IMAGE,
    "mask decoder": MASKS,
    "merging": MASKS,
    "encode the result": ENCODE,
}
COPIES = "copies to networks and back"  # shared out among the networks
PLACES = tuple(dict.fromkeys(STAGES.values()))
CONFIDENCE, PRECISION = 0.95, 0.02  # of intervals; of the highest traffic
LOADS = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)  # of what the networks could do if they were never idle
PACKAGES = ("numpy", "scipy")


def read_config(path: Path) -> ModelConfig:
    return text_format.Parse(path.read_text(), ModelConfig())


def read_setting(repository: Path, runtime: str, gpus: int) -> Setting:
    """From the config.pbtxt files of a model repository; the runtime says which of a network's."""
    paths = {model: repository / model / "config.pbtxt" for model in STEPS}
    config = "config.pbtxt" if runtime == "tensorrt" else f"configs/{runtime}.pbtxt"
    paths |= {network: repository / network / config for network in NETWORKS}
    configs = {model: read_config(path) for model, path in paths.items()}
    pipeline = configs[PIPELINE]
    policy = pipeline.dynamic_batching.default_queue_policy
    instances = {model: sum(group.count for group in config.instance_group) for model, config in configs.items()}
    return Setting(
        volumes_at_once=instances[PIPELINE],
        queue_size=policy.max_queue_size,
        queue_timeout_s=policy.default_timeout_microseconds / 1e6,
        window_size=int(pipeline.parameters["window_size"].string_value),
        windows_in_flight=int(pipeline.parameters["windows_in_flight"].string_value) or (2 if gpus else 1),
        instances={model: max(1, number) for model, number in instances.items()},
        gpus=gpus,
    )


@dataclass(frozen=True)
class Numbers:
    """Latency is the caller's, from sending the volume to holding the result."""

    served_per_h: float
    refused_share: float
    p50_s: float
    p95_s: float
    utilisation: float


COLUMNS = tuple(column.name for column in fields(Numbers))


@dataclass(frozen=True)
class Estimate:
    """Means over independent runs, and half the widths of their confidence intervals."""

    offered_per_h: float
    mean: Numbers
    half: Numbers


def numbers(run: Run, traffic: Traffic, outside_s: float) -> Numbers:
    """outside_s: seconds per slice before the server has the volume and after it has answered."""
    begin, end = run.watched
    served = [request for request in run.requests if not request.is_refused]
    counted = run.requests[int(traffic.n_volumes * traffic.warm_up) :]
    latencies = [r.ended - r.arrived + outside_s * r.n_slices for r in counted if not r.is_refused]
    return Numbers(
        served_per_h=3600 * sum(begin < request.ended <= end for request in served) / (end - begin),
        refused_share=sum(request.is_refused for request in counted) / len(counted),
        p50_s=median(latencies),
        p95_s=p95(latencies),
        utilisation=run.busy_s / sum(len(server.devices) for server in run.servers) / (end - begin),
    )


def estimate(setting: Setting, times: Times, traffic: Traffic, n_runs: int, seed: int) -> Estimate:
    generators = [np.random.default_rng(sequence) for sequence in np.random.SeedSequence(seed).spawn(n_runs)]
    runs = [numbers(simulate(setting, times, traffic, rng), traffic, times[OUTSIDE]) for rng in generators]
    values = np.array([[getattr(run, name) for name in COLUMNS] for run in runs])
    half = stdtrit(n_runs - 1, (1 + CONFIDENCE) / 2) * values.std(0, ddof=1) / n_runs**0.5
    return Estimate(traffic.per_hour, Numbers(*values.mean(0).tolist()), Numbers(*half.tolist()))


def highest(
    at: Callable[[float], Estimate], is_good: Callable[[Estimate], bool], ceiling_per_h: float
) -> Estimate | None:
    """The highest good traffic between a hundredth of the ceiling and the ceiling, by halving."""
    low, high, best = 0.0, ceiling_per_h, None
    while high - low > PRECISION * high and high > ceiling_per_h / 100:
        found = at((low + high) / 2)
        if is_good(found):
            low, best = found.offered_per_h, found
        else:
            high = found.offered_per_h
    return best


def seconds_of(times: Times, models: Sequence[str], n_slices: float) -> float:
    """What a volume costs in these models."""
    return sum(times[model] * (1 if model in ONCE else n_slices) for model in models)


def ceiling_per_h(setting: Setting, times: Times, mean_slices: float, n_machines: int) -> float:
    """Volumes an hour if the GPUs, or without them the cores, were never idle."""
    models = NETWORKS if setting.gpus else (*STEPS, *NETWORKS)
    return 3600 * n_machines * max(1, setting.gpus) / seconds_of(times, models, mean_slices)


def read_stages(path: Path, runtime: str, protocol: str, prompts: int) -> tuple[dict[str, float], dict[str, str]]:
    """The times in the last run of stages.py, from its largest volume, and a row of it.

    Time in queues is left out: the simulation has its own.
    """
    key = ("variant", "runtime", "protocol", "slices", "prompts", "window_size", "windows_in_flight", "stage")
    rows = [
        row
        for row in last_run(path, key)
        if (VARIANTS[row["variant"]].model, row["runtime"], row["protocol"]) == (PIPELINE, runtime, protocol)
        and (row["prompts"], row["windows_in_flight"]) == (str(prompts), "1")
    ]
    if not rows:
        raise ValueError(f"{path} has no rows of {runtime}, {prompts} prompts, {protocol}, with one window in flight")
    largest = max(rows, key=lambda row: int(row["slices"]))
    sizes = (largest["slices"], largest["window_size"])
    seconds = {row["stage"]: float(row["ms"]) / 1000 for row in rows if (row["slices"], row["window_size"]) == sizes}
    spent = dict.fromkeys(PLACES, 0.0)
    for stage, place in STAGES.items():
        spent[place] += seconds[stage]
    copied = 1 + seconds[COPIES] / sum(spent[network] for network in NETWORKS)
    for network in NETWORKS:
        spent[network] *= copied
    n_slices = int(largest["slices"])
    # the difference of two measurements can be below 0
    return {place: max(s, 0.0) / (1 if place in ONCE else n_slices) for place, s in spent.items()}, largest


def known_times(options: argparse.Namespace) -> tuple[dict[str, float], dict[str, str]]:
    """The times, and where they are from as columns of the rows."""
    assumed = dict(options.assume)
    said = {"variant": options.variant, "measured": "", "window_size": ""}
    said["assumed_ms"] = " ".join(f"{place}={1000 * s:g}" for place, s in assumed.items())
    if set(assumed) == set(PLACES):
        return assumed, said
    path = options.stages or RESULTS / options.variant / "stages.csv"
    times, row = read_stages(path, options.runtime or "cpu", options.protocol, options.prompts)
    if max(options.gpus) and row["runtime"].startswith("cpu") and not set(NETWORKS) <= set(assumed):
        raise ValueError(f"the networks were measured on a CPU; for GPUs --assume {', '.join(NETWORKS)}")
    said |= {"variant": row["variant"], "window_size": row["window_size"]}
    said["measured"] = f"{row['cpu']}, {row['cores']} cores, {row['precision']}, commit {row['commit']}, {row['date']}"
    return times | assumed, said


def setting_of(options: argparse.Namespace, gpus: int) -> Setting:
    setting = read_setting(options.repository, options.runtime or ("tensorrt" if gpus else "cpu"), gpus)
    asked = {name: getattr(options, name) for name in ("volumes_at_once", "windows_in_flight", "queue_size")}
    return replace(setting, **{name: value for name, value in asked.items() if value is not None})


def size_range(words: str) -> range:
    """63-200, or 63: numbers of slices."""
    first, _, last = words.partition("-")
    sizes = range(int(first), int(last or first) + 1)
    if not sizes or sizes[0] < 1:
        raise argparse.ArgumentTypeError(f"{words} is no range of slices such as 63-200")
    return sizes


def assumption(words: str) -> tuple[str, float]:
    """PLACE=MS as seconds."""
    place, _, ms = words.partition("=")
    if place not in PLACES:
        raise argparse.ArgumentTypeError(f"{place} is none of {', '.join(PLACES)}")
    return place, float(ms) / 1000


def drawing(ranges: Sequence[range]) -> Callable[[np.random.Generator, int], list[int]]:
    """Each range equally often, and in it each number of slices."""
    return lambda rng, n: [int(rng.choice(ranges[k])) for k in rng.integers(len(ranges), size=n)]


def row_of(setting: Setting, traffic: Traffic, kind: str, found: Estimate | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "gpus": setting.gpus,
        "machines": traffic.n_machines,
        "balancer": traffic.balancer if traffic.n_machines > 1 else "",
        "volumes_at_once": setting.volumes_at_once,
        "queue_size": setting.queue_size,
        "windows_in_flight": setting.windows_in_flight,
        "kind": kind,
        "offered_per_h": found.offered_per_h if found else "",
    }
    for name in COLUMNS:
        row[name] = getattr(found.mean, name) if found else ""
        row[f"{name}_half"] = getattr(found.half, name) if found else ""
    return row


def label_of(row: Mapping[str, Any]) -> str:
    machines = f"{row['machines']} x {row['gpus']} GPU" if row["gpus"] else f"{row['machines']} without GPU"
    return ", ".join(filter(None, (machines, row["balancer"])))


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """The highest traffic of each number of GPUs and machines, as a Markdown table."""
    columns = {
        "machines": "machines",
        "volumes an hour, at most": "offered_per_h",
        "p50, s": "p50_s",
        "p95, s": "p95_s",
    }
    columns |= {"refused": "refused_share", "utilisation": "utilisation"}
    return table(
        [
            {name: f"{row[name]:.3g}" if row[name] != "" else "none" for name in columns.values() if name != "machines"}
            | {"machines": label_of(row)}
            for row in rows
        ],
        columns,
    )


def draw_plot(rows: Sequence[Mapping[str, Any]], title: str, target_s: float, path: Path) -> None:
    """What is served, and how long it takes, over the traffic."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for label in dict.fromkeys(map(label_of, rows)):
        own = [row for row in rows if label_of(row) == label]
        offered, served, p50_s, p95_s = (
            [row[name] for row in own] for name in ("offered_per_h", "served_per_h", "p50_s", "p95_s")
        )
        (line,) = left.plot(offered, p95_s, marker=".", label=label)
        left.plot(offered, p50_s, color=line.get_color(), linestyle=":")
        right.plot(offered, served, color=line.get_color(), marker=".", label=label)
    left.axhline(target_s, color="0.6", linewidth=1)
    right.axline((0, 0), slope=1, color="0.6", linewidth=1)
    for axes, name in ((left, "seconds to the answer: p95, dotted p50"), (right, "volumes served an hour")):
        axes.set(xlabel="volumes offered an hour", ylabel=name, xlim=(0, None), ylim=(0, None))
        axes.legend(fontsize="small")
    figure.suptitle(title, fontsize="small", wrap=True)
    figure.savefig(path, metadata={"Date": None})


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="PUBLISHED", help="whose results/VARIANT/stages.csv is read")
    parser.add_argument("--stages", type=Path, metavar="CSV", help="another file of stages.py")
    parser.add_argument("--protocol", choices=("grpc", "http"), default="grpc")
    parser.add_argument("--prompts", type=int, default=15, help="as many as stages.py had")
    wanted = f"milliseconds instead of measured ones, of a volume for {' and '.join(ONCE)}, of a slice for "
    wanted += f"{', '.join(place for place in PLACES if place not in ONCE)}; if it is all of them, no file is read"
    parser.add_argument("--assume", type=assumption, nargs="+", default=[], metavar="PLACE=MS", help=wanted)
    parser.add_argument("--gpus", type=int, nargs="+", default=[0], metavar="N", help="of a machine; 0: cores only")
    parser.add_argument("--machines", type=int, nargs="+", default=[1, 2], metavar="N", help="behind a load balancer")
    parser.add_argument("--balancers", nargs="+", choices=BALANCERS, default=["least"])
    parser.add_argument("--slices", type=size_range, nargs="+", default=[range(63, 201)], metavar="N-M")
    parser.add_argument("--rates", type=float, nargs="+", metavar="N", help="volumes an hour of the sweep")
    parser.add_argument("--target-s", type=float, default=600.0, help="for p95; 600 is the client's time-out")
    parser.add_argument("--max-refused", type=float, default=0.001, metavar="SHARE")
    parser.add_argument("--repository", type=Path, default=MODEL_REPOSITORY, metavar="DIR", help="for its config.pbtxt")
    parser.add_argument("--runtime", metavar="NAME", help="cpu if left out, with GPUs tensorrt")
    for name in ("--volumes-at-once", "--windows-in-flight", "--queue-size"):
        parser.add_argument(name, type=int, metavar="N", help="instead of what is configured")
    parser.add_argument("--volumes", type=int, default=1000, metavar="N", help="of a run, the first fifth not counted")
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="two or more, for confidence intervals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, metavar="CSV", help="by default results/VARIANT/capacity.csv")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    times, said = known_times(options)
    results = options.results or RESULTS / options.variant / "capacity.csv"
    mean_slices = float(np.mean([np.mean(sizes) for sizes in options.slices]))
    here = conditions(PACKAGES) | said | {"slices": " ".join(f"{sizes[0]}-{sizes[-1]}" for sizes in options.slices)}
    here |= {name: getattr(options, name) for name in ("prompts", "volumes", "runs", "seed", "target_s", "max_refused")}
    rows: list[dict[str, Any]] = []

    def is_good(found: Estimate) -> bool:
        """With the upper ends of the confidence intervals."""
        refused, slow_s = (getattr(found.mean, name) + getattr(found.half, name) for name in ("refused_share", "p95_s"))
        return bool(refused <= options.max_refused and slow_s <= options.target_s)

    def study(setting: Setting, traffic: Traffic) -> None:
        def at(per_hour: float) -> Estimate:
            return estimate(setting, times, replace(traffic, per_hour=per_hour), options.runs, options.seed)

        ceiling = ceiling_per_h(setting, times, mean_slices, traffic.n_machines)
        found = [("sweep", at(rate)) for rate in options.rates or [load * ceiling for load in LOADS]]
        for kind, point in [*found, ("highest", highest(at, is_good, ceiling))]:
            rows.append(row_of(setting, traffic, kind, point))
            append_row(results, here | rows[-1])

    for gpus, n_machines in product(options.gpus, options.machines):
        setting = setting_of(options, gpus)
        if said["window_size"] not in ("", str(setting.window_size)):
            raise ValueError(f"measured with windows of {said['window_size']}, configured is {setting.window_size}")
        for balancer in options.balancers if n_machines > 1 else options.balancers[:1]:
            study(setting, Traffic(0.0, drawing(options.slices), options.volumes, n_machines, balancer))

    origin = [f"measured: {said['measured']}"] if said["measured"] else []
    origin += [f"ASSUMED, not measured, in ms: {said['assumed_ms']}"] if said["assumed_ms"] else []
    title = f"{said['variant']}, {options.prompts} prompts, {here['slices']} slices; {'; '.join(origin)}"
    print(f"{title}\np95 within {options.target_s:g} s, at most {100 * options.max_refused:g} % refused\n")
    print(summary([row for row in rows if row["kind"] == "highest"]))
    try:
        draw_plot([row for row in rows if row["kind"] == "sweep"], title, options.target_s, results.with_suffix(".svg"))
    except ImportError:
        print("\nno plot: matplotlib is missing (pip install -e '.[bench]')")


if __name__ == "__main__":
    main()
