"""How many volumes an hour machines with the served 3D model take, by simulation from the stages of stages.py.

A volume goes through medimageparse_3d as its config.pbtxt says: the bounded queue, so many volumes at a time, so many
windows of each on the machine's cores or GPUs. Arrivals are Poisson's. With --at-most the number of machines follows
the volumes that wait, as Kubernetes' HPA does. docs/capacity.md says how to read the rows.
"""

import argparse
from collections.abc import Generator, Iterator, Sequence
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
ONCE, SIZES = ("tokenize", "text encoder"), ("slices", "prompts")  # once in a volume; all else grows with its slices
# as deploy/kubernetes: how often, how long before machines go, waiting volumes for each
CHECKED_EVERY_S, CALM_S, WAITING, MAX_REFUSED = 15.0, 900.0, 2, 0.001  # the last is a share of the volumes
Process = Generator[simpy.Event, object, None]


@dataclass(frozen=True)
class Setting:
    """Machines behind a balancer that knows the least loaded one; up to `at_most`, which start within `start_s`.

    once_s, steps_s, networks_s: of a volume; of each slice in the python steps and in the networks
    gpus: of a machine; 0 means that its cores do everything, one call after the other
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
        self.n_refused, self.busy_s, self.latencies, self.n_machines = 0, 0.0, list[float](), list[int]()

    def run(self, per_s: float, sizes: Sequence[int], seed: int = 0) -> "Simulation":
        """Volumes of so many slices, until the last is answered or refused."""
        self.env.process(self.scale())
        self.env.run(self.env.process(self.arrive(per_s, sizes, np.random.default_rng(seed))))
        return self

    def arrive(self, per_s: float, sizes: Sequence[int], rng: np.random.Generator) -> Process:
        volumes = []
        for n_slices in sizes:
            yield self.env.timeout(rng.exponential(1 / per_s))
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
            wanted.append(min(max(least, int(np.ceil(waiting))), max(least, self.setting.at_most)))
            n, ready_at = max(wanted[-int(CALM_S / CHECKED_EVERY_S) :]), self.env.now + self.setting.start_s
            self.machines += [Machine(self.env, self.setting, ready_at) for _ in range(n - len(self.machines))]
            del self.machines[n:]  # they finish what they have
            self.n_machines.append(n)
            yield self.env.timeout(CHECKED_EVERY_S)


def read_setting(repository: Path, **other: float) -> Setting:
    """The queue, windows and volumes at a time from the config.pbtxt of the public model."""
    config = text_format.Parse((repository / "medimageparse_3d" / "config.pbtxt").read_text(), ModelConfig())
    policy, at_once = config.dynamic_batching.default_queue_policy, sum(group.count for group in config.instance_group)
    window_size, in_flight = (int(config.parameters[f"window{name}"].string_value) for name in ("_size", "s_in_flight"))
    windows = (window_size, in_flight or (2 if other.get("gpus") else 1))
    return Setting(at_once, policy.max_queue_size, policy.default_timeout_microseconds / 1e6, *windows, **other)


def read_times(path: Path) -> tuple[dict[str, float], str]:
    """Of the largest 3D request in the last run of stages.py; and where it was measured."""
    wanted = {"variant": path.parent.name, "runtime": "cpu", "protocol": "grpc", "windows_in_flight": "1"}
    rows = [row for row in last_run(path, (*wanted, *SIZES, "stage")) if wanted.items() <= row.items()]
    if not rows:
        raise SystemExit(f"{path.name} has no 3D rows of RUNTIME=cpu, gRPC, one window in flight")
    row = max(rows, key=lambda row: [int(row[size]) for size in SIZES])
    ms = {r["stage"]: float(r["ms"]) for r in rows if all(r[size] == row[size] for size in SIZES)}
    # the difference of two measurements can be below 0
    once, steps, ours = (max(0.0, sum(ms.get(stage, 0) for stage in of)) / 1000 for of in (ONCE, STEPS, NETWORKS))
    origin = f"{row['cpu']}, {row['cores']} cores, {row['precision']}, {row['prompts']} prompts, {row['commit']}"
    return {"once_s": once, "steps_s": steps / int(row["slices"]), "networks_s": ours / int(row["slices"])}, origin


def numbers(setting: Setting, per_h: float, options: argparse.Namespace) -> dict[str, float]:
    sizes = np.random.default_rng(1).integers(options.slices[0], options.slices[1] + 1, options.volumes)
    run = Simulation(setting).run(per_h / 3600, sizes)
    answered, n_machines = run.latencies or [np.inf], float(np.mean(run.n_machines))
    shares = {"refused_share": run.n_refused / options.volumes, "utilisation": run.busy_s / run.env.now / n_machines}
    return {"volumes_per_h": per_h, "p50_s": median(answered), "p95_s": p95(answered), **shares, "there": n_machines}


def most_per_h(setting: Setting, options: argparse.Namespace) -> float:
    """The most volumes an hour that are answered in time, to 0.4 % of what machines do that are never idle; or 0."""
    low, high = 0.0, 3600 * setting.machines * max(1, setting.gpus) / (setting.networks_s * np.mean(options.slices))
    for _ in range(8):
        row, middle = numbers(setting, (low + high) / 2, options), (low + high) / 2
        is_good = row["p95_s"] <= options.target_s and row["refused_share"] <= MAX_REFUSED
        low, high = (middle, high) if is_good else (low, middle)
    return low


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """Of each number of machines at each rate, or at the highest that meets the target."""
    times, origin = read_times(RESULTS / options.variant / "stages.csv")
    if options.gpus:
        times["networks_s"], origin = options.gpu_ms / 1000, f"ASSUMED {options.gpu_ms:g} ms a slice; {origin}"
    here = conditions(("numpy", "simpy")) | {"variant": options.variant, "times": origin}
    here |= {"slices": "-".join(map(str, options.slices)), "target_s": options.target_s}
    for machines in options.machines:
        shown = {"machines": machines} | {name: getattr(options, name) for name in ("gpus", "at_most")}
        setting = read_setting(MODEL_REPOSITORY, **times, **shown)
        for per_h in filter(None, options.rates or [most_per_h(setting, options)]):
            yield here | shown | numbers(setting, per_h, options)


def summary(row: Row) -> str:
    line = f"{row['there']:.1f} machines, {row['gpus']} GPUs each: {row['volumes_per_h']:.3g} volumes an hour, p50 "
    return f"{line}{row['p50_s']:.3g} s, p95 {row['p95_s']:.3g} s, refused {100 * row['refused_share']:.2f} %"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, work=False)
    parser.add_argument("--variant", default="PUBLISHED", help="whose results/VARIANT/stages.csv is read")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="of a machine; 0: cores only")
    parser.add_argument("--gpu-ms", type=float, metavar="MS", help="of the networks for a slice, by gpu_networks.py")
    parser.add_argument("--machines", type=int, nargs="+", default=[1, 2], metavar="N", help="behind a load balancer")
    parser.add_argument("--at-most", type=int, default=0, metavar="N", help="machines: the autoscaler adds them")
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
