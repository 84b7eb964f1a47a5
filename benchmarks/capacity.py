"""How many volumes an hour machines with the served 3D model take, by simulation from the stages of stages.py.

A volume goes through medimageparse_3d as its config.pbtxt says: the bounded queue, so many volumes at a time, so many
windows of each on the machine's cores or GPUs. Arrivals are random (Poisson). With --at-most the number of machines
follows the volumes that wait, as Kubernetes' HPA does. CAPACITY.md says how to read the rows.
"""

import argparse
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simpy
from google.protobuf import text_format
from medimageparse_demo import MODEL_REPOSITORY
from recording import RESULTS, Row, conditions, median, p95, parser_of, record
from report import last_run
from tritonclient.grpc.model_config_pb2 import ModelConfig

STEPS = ("decode the image", "make windows", "calls between the steps", "encode the result")
NETWORKS = ("image encoder", "mask decoder", "merging", "copies to networks and back")
ONCE = ("tokenize", "text encoder")  # in a volume; all else grows with its slices
PRECISION, MAX_REFUSED = 0.02, 0.001  # shares of the highest rate, and of the volumes
CHECKED_EVERY_S, CALM_S = 15.0, 300.0  # by the HPA, unless it is told otherwise: for more machines, and for fewer
WAITING = 2  # volumes for each machine: what the HPA aims at
Process = Generator[simpy.Event, object, None]
Draw = Callable[[np.random.Generator, int], Sequence[int]]  # slices of so many volumes


@dataclass(frozen=True)
class Setting:
    """Machines behind a balancer that knows the least loaded one.

    once_s, steps_s, networks_s: of a volume; of each slice in the python steps and in the networks
    gpus: of a machine; 0 means that its cores do everything, one call after the other
    at_most: 0 is always `machines`; otherwise as many machines as have WAITING volumes each, ready after `start_s`
    """

    volumes_at_once: int
    queue_size: int
    queue_timeout_s: float
    window_size: int
    windows_in_flight: int
    once_s: float
    steps_s: float
    networks_s: float
    gpus: int = 0
    machines: int = 1
    at_most: int = 0
    start_s: float = 120.0


class Machine(simpy.Resource):
    def __init__(self, env: simpy.Environment, setting: Setting, ready_at: float = 0.0) -> None:
        super().__init__(env, setting.volumes_at_once)
        self.devices, self.ready_at = simpy.Resource(env, max(1, setting.gpus)), ready_at

    def load(self) -> int:
        return self.count + len(self.queue)


class Simulation:
    """latencies: of answered volumes, in seconds; n_machines: at each check, with those that start."""

    def __init__(self, setting: Setting) -> None:
        self.env, self.setting = simpy.Environment(), setting
        self.machines = [Machine(self.env, setting) for _ in range(setting.machines)]
        self.n_refused, self.busy_s = 0, 0.0
        self.latencies: list[float] = []
        self.n_machines: list[int] = []

    def run(self, per_s: float, n: int, draw: Draw, seed: int = 0) -> "Simulation":
        """Until the last of n volumes is answered or refused."""
        rng = np.random.default_rng(seed)
        self.env.process(self.scale())
        self.env.run(self.env.process(self.arrive(rng.exponential(1 / per_s, n), draw(rng, n))))
        return self

    def arrive(self, pauses: Sequence[float], sizes: Sequence[int]) -> Process:
        volumes = []
        for pause, n_slices in zip(pauses, sizes, strict=True):
            yield self.env.timeout(pause)
            machine = min((m for m in self.machines if m.ready_at <= self.env.now), key=Machine.load)
            volumes.append(self.env.process(self.volume(machine, int(n_slices))))
        yield self.env.all_of(volumes)

    def volume(self, machine: Machine, n_slices: int) -> Process:
        arrived, setting = self.env.now, self.setting
        is_full = machine.load() >= setting.volumes_at_once + setting.queue_size
        with machine.request() as turn:
            if not is_full:
                yield turn | self.env.timeout(setting.queue_timeout_s)
            if is_full or not turn.triggered:
                self.n_refused += 1
                return
            seconds = setting.once_s + setting.steps_s * n_slices
            # beside GPUs a python step has a core for itself
            yield self.env.timeout(seconds) if setting.gpus else self.env.process(self.compute(machine, seconds))
            in_flight: list[simpy.Event] = []
            for first in range(0, n_slices, setting.window_size):
                if len(in_flight) == setting.windows_in_flight:
                    yield in_flight.pop(0)
                seconds = setting.networks_s * min(setting.window_size, n_slices - first)
                in_flight.append(self.env.process(self.compute(machine, seconds)))
            yield self.env.all_of(in_flight)
        self.latencies.append(self.env.now - arrived)

    def compute(self, machine: Machine, seconds: float) -> Process:
        with machine.devices.request() as turn:
            yield turn
            yield self.env.timeout(seconds)
            self.busy_s += seconds / max(1, self.setting.gpus)

    def scale(self) -> Process:
        """More machines as soon as they are wanted; fewer when that is all that was wanted for a while."""
        least, wanted = self.setting.machines, []
        while True:
            waiting = sum(len(machine.queue) for machine in self.machines) / WAITING
            wanted.append(min(max(least, math.ceil(waiting)), max(least, self.setting.at_most)))
            n, ready_at = max(wanted[-int(CALM_S / CHECKED_EVERY_S) :]), self.env.now + self.setting.start_s
            self.machines += [Machine(self.env, self.setting, ready_at) for _ in range(n - len(self.machines))]
            del self.machines[n:]  # they finish what they have
            self.n_machines.append(n)
            yield self.env.timeout(CHECKED_EVERY_S)


def read_setting(repository: Path, **other: float) -> Setting:
    """The queue, windows and volumes at a time from the config.pbtxt of the public model."""
    config = text_format.Parse((repository / "medimageparse_3d" / "config.pbtxt").read_text(), ModelConfig())
    policy, parameters = config.dynamic_batching.default_queue_policy, config.parameters
    in_flight = int(parameters["windows_in_flight"].string_value) or (2 if other.get("gpus") else 1)
    queue = (policy.max_queue_size, policy.default_timeout_microseconds / 1e6)
    at_once = sum(group.count for group in config.instance_group)
    return Setting(at_once, *queue, int(parameters["window_size"].string_value), in_flight, **other)


def read_times(path: Path, prompts: int) -> tuple[dict[str, float], str]:
    """Of the largest volume in the last run of stages.py, over gRPC; and where it was measured."""
    key = ("runtime", "protocol", "prompts", "windows_in_flight")
    rows = [row for row in last_run(path, ("variant", *key, "slices", "stage")) if not row["variant"].endswith("_2D")]
    rows = [row for row in rows if tuple(row[name] for name in key) == ("cpu", "grpc", str(prompts), "1")]
    if not rows:
        raise SystemExit(f"{path.name} has no rows of RUNTIME=cpu, gRPC, {prompts} prompts, one window in flight")
    row = max(rows, key=lambda row: int(row["slices"]))
    ms = {r["stage"]: float(r["ms"]) for r in rows if r["slices"] == row["slices"]}
    once_s, steps_s, networks_s = (sum(ms.get(stage, 0.0) for stage in of) / 1000 for of in (ONCE, STEPS, NETWORKS))
    # the difference of two measurements can be below 0
    times = {"once_s": once_s, "steps_s": max(0.0, steps_s / int(row["slices"]))}
    origin = f"{row['cpu']}, {row['cores']} cores, {row['precision']}, commit {row['commit']}, {row['date']}"
    return times | {"networks_s": networks_s / int(row["slices"])}, origin


def numbers(setting: Setting, per_h: float, options: argparse.Namespace) -> dict[str, float]:
    sizes = (options.slices[0], options.slices[1] + 1)
    run = Simulation(setting).run(per_h / 3600, options.volumes, lambda rng, n: rng.integers(*sizes, n))
    answered, n_machines = run.latencies or [math.inf], float(np.mean(run.n_machines))
    refused_share = run.n_refused / (len(run.latencies) + run.n_refused)
    found = {"volumes_per_h": per_h, "p50_s": median(answered), "p95_s": p95(answered), "refused_share": refused_share}
    return found | {"mean_machines": n_machines, "utilisation": run.busy_s / run.env.now / n_machines}


def most_per_h(setting: Setting, options: argparse.Namespace) -> float:
    """The most volumes an hour that are answered in time, by halving; 0 if there are none."""
    low, high = 0.0, 3600 * setting.machines * max(1, setting.gpus) / (setting.networks_s * np.mean(options.slices))
    smallest = high / 100
    while high - low > PRECISION * high and high > smallest:
        row, middle = numbers(setting, (low + high) / 2, options), (low + high) / 2
        is_good = row["p95_s"] <= options.target_s and row["refused_share"] <= MAX_REFUSED
        low, high = (middle, high) if is_good else (low, middle)
    return low


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """Of each number of machines at each rate, or at the highest that meets the target."""
    times, origin = read_times(options.stages or RESULTS / options.variant / "stages.csv", options.prompts)
    if options.gpus:
        times["networks_s"], origin = options.gpu_ms / 1000, f"ASSUMED {options.gpu_ms:g} ms a slice; {origin}"
    here = conditions(("numpy", "simpy")) | {"variant": options.variant, "times": origin, "prompts": options.prompts}
    here |= {"slices": "-".join(map(str, options.slices)), "target_s": options.target_s}
    for machines in options.machines:
        shown = {"machines": machines} | {name: getattr(options, name) for name in ("gpus", "at_most", "start_s")}
        setting = read_setting(MODEL_REPOSITORY, **times, **shown)
        for per_h in filter(None, options.rates or [most_per_h(setting, options)]):
            yield here | shown | numbers(setting, per_h, options)


def summary(row: Row) -> str:
    line = f"{row['machines']} to {row['at_most'] or row['machines']} machines, {row['gpus']} GPUs each: "
    line += f"{row['volumes_per_h']:.3g} volumes an hour, p50 {row['p50_s']:.3g} s, p95 {row['p95_s']:.3g} s, refused "
    return f"{line}{100 * row['refused_share']:.2f} %, {row['mean_machines']:.1f} there, busy {row['utilisation']:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, work=False)
    parser.add_argument("--variant", default="PUBLISHED", help="whose results/VARIANT/stages.csv is read")
    parser.add_argument("--stages", type=Path, metavar="CSV", help="another file of stages.py")
    parser.add_argument("--prompts", type=int, default=15, help="as many as stages.py had")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="of a machine; 0: cores only")
    parser.add_argument("--gpu-ms", type=float, metavar="MS", help="of the networks for a slice, by gpu_networks.py")
    parser.add_argument("--machines", type=int, nargs="+", default=[1, 2], metavar="N", help="behind a load balancer")
    parser.add_argument("--at-most", type=int, default=0, metavar="N", help="machines: the autoscaler adds them")
    parser.add_argument("--start-s", type=float, default=120.0, help="until a new machine serves")
    parser.add_argument("--slices", type=int, nargs=2, default=(63, 200), metavar="N", help="least and most")
    parser.add_argument("--rates", type=float, nargs="+", metavar="N", help="volumes an hour; by default the highest")
    parser.add_argument("--target-s", type=float, default=600.0, help="for p95; 600 is the client's time-out")
    parser.add_argument("--volumes", type=int, default=4000, metavar="N", help="of a run")
    options = parser.parse_args(arguments)
    if bool(options.gpus) != bool(options.gpu_ms):
        parser.error("stages.py measures networks on a CPU: --gpus and --gpu-ms go together")
    record(options.results or RESULTS / options.variant / "capacity.csv", rows(options), summary)


if __name__ == "__main__":
    main()
