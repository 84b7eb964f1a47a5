"""The served 3D model, simulated: queue, steps, networks, devices, and random traffic at one machine or several."""

import heapq
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import numpy as np

TEXT, IMAGE, MASKS = NETWORKS = ("text_encoder_3d", "image_encoder_3d", "mask_decoder_3d")
PIPELINE, DECODE, TOKENIZE, ENCODE = "medimageparse_3d", "decode_volume", "tokenize_prompts", "encode_masks"
STEPS = (DECODE, TOKENIZE, PIPELINE, ENCODE)
ONCE = (TOKENIZE, TEXT)  # in a volume; all else grows with its slices
BALANCERS = ("least", "random")
CANARY_SLICES, CANARY_SHARE = 3, 20  # as in model_repository/canary.py and supervise.py

Times = Mapping[str, float]  # model -> seconds, of a volume for ONCE, else of a slice


class Clock:
    """Does what was planned, in the order of time; seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.planned: list[tuple[float, int, Callable[[], None]]] = []
        self.order = count()

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.planned, (time, next(self.order), action))

    def run(self, until: Callable[[], bool]) -> None:
        while self.planned and not until():
            self.now, _, action = heapq.heappop(self.planned)
            action()


class Call:
    """Something that ends; then comes what was to follow it."""

    def __init__(self) -> None:
        self.has_ended = False
        self.following: Callable[[], None] | None = None

    def end(self) -> None:
        self.has_ended = True
        if self.following:
            self.following()

    def then(self, action: Callable[[], None]) -> None:
        if self.has_ended:
            action()
        else:
            self.following = action


Process = Generator[Call, None, None]


def start(process: Process) -> Call:
    """Runs a process up to the first call that it must wait for, and on whenever that has ended."""
    whole = Call()

    def go_on() -> None:
        for call in process:
            if not call.has_ended:
                call.then(go_on)
                return
        whole.end()

    go_on()
    return whole


class Device:
    """A GPU, or all cores of a CPU: calls that run at the same time share it equally, one alone has full speed."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.left_s: dict[Call, float] = {}
        self.busy_s, self.since, self.plan = 0.0, 0.0, 0

    def run(self, seconds: float) -> Call:
        call = Call()
        self.advance()
        self.left_s[call] = seconds
        self._plan_end()
        return call

    def advance(self) -> None:
        elapsed, self.since = self.clock.now - self.since, self.clock.now
        if self.left_s:
            self.busy_s += elapsed
            for call in self.left_s:
                self.left_s[call] -= elapsed / len(self.left_s)

    def _plan_end(self) -> None:
        self.plan += 1  # the end planned before is void
        if self.left_s:
            first, left_s = min(self.left_s.items(), key=lambda item: item[1])
            self.clock.at(self.clock.now + max(left_s, 0.0) * len(self.left_s), partial(self._end, first, self.plan))

    def _end(self, call: Call, plan: int) -> None:
        if plan == self.plan:
            self.advance()
            del self.left_s[call]
            self._plan_end()
            call.end()


class Model:
    """Instances, each on a device; a call waits its turn, then takes the free instance whose device has least to do."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.free = list(devices)
        self.waiting: deque[tuple[float, Call]] = deque()

    def call(self, seconds: float) -> Call:
        call = Call()
        if seconds > 0:
            self.waiting.append((seconds, call))
            self._begin()
        else:
            call.end()
        return call

    def _begin(self) -> None:
        while self.waiting and self.free:
            device = min(self.free, key=lambda device: len(device.left_s))
            self.free.remove(device)
            seconds, call = self.waiting.popleft()
            device.run(seconds).then(partial(self._end, device, call))

    def _end(self, device: Device, call: Call) -> None:
        self.free.append(device)
        self._begin()
        call.end()


@dataclass(frozen=True)
class Setting:
    """What the configurations say. instances: of every model, of a network on each GPU.

    gpus: 0 means that the cores do everything; canary_every_s: 0 means that there are no canaries
    """

    volumes_at_once: int
    queue_size: int
    queue_timeout_s: float
    window_size: int
    windows_in_flight: int
    instances: Mapping[str, int]
    gpus: int = 0
    canary_every_s: float = 5.0


class Request(Call):
    """A volume on its way; seconds of the clock."""

    def __init__(self, n_slices: int, arrived: float) -> None:
        super().__init__()
        self.n_slices, self.arrived, self.ended = n_slices, arrived, arrived
        self.is_refused = False


class Server:
    """One machine with one tritonserver."""

    def __init__(self, clock: Clock, setting: Setting, times: Times) -> None:
        self.clock, self.setting, self.times = clock, setting, times
        cpu = Device(clock)
        self.devices = [Device(clock) for _ in range(setting.gpus)] or [cpu]

        self.models = {network: Model(self.devices * setting.instances[network]) for network in NETWORKS}
        for step in STEPS:  # beside GPUs every instance of a python step has a core
            n_instances = setting.volumes_at_once if step == PIPELINE else setting.instances[step]
            self.models[step] = Model([Device(clock) if setting.gpus else cpu for _ in range(n_instances)])
        self.under_way: set[Request] = set()
        self.queue: deque[Request] = deque()

    def outstanding(self) -> int:
        return len(self.under_way) + len(self.queue)

    def take(self, request: Request) -> None:
        if len(self.under_way) < self.setting.volumes_at_once:
            self._begin(request)
        elif len(self.queue) < self.setting.queue_size:
            self.queue.append(request)
            self.clock.at(self.clock.now + self.setting.queue_timeout_s, partial(self._give_up, request))
        else:
            self._end(request, is_refused=True)

    def _begin(self, request: Request) -> None:
        self.under_way.add(request)
        start(self._segment(request.n_slices)).then(partial(self._finish, request))

    def _finish(self, request: Request) -> None:
        self.under_way.remove(request)
        self._end(request)
        if self.queue:
            self._begin(self.queue.popleft())

    def _give_up(self, request: Request) -> None:
        if request in self.queue:
            self.queue.remove(request)
            self._end(request, is_refused=True)

    def _end(self, request: Request, is_refused: bool = False) -> None:
        request.ended, request.is_refused = self.clock.now, is_refused
        request.end()

    def _call(self, model: str, n_slices: int) -> Call:
        return self.models[model].call(self.times[model] * (1 if model in ONCE else n_slices))

    def _segment(self, n_slices: int) -> Process:
        """As in model_repository/medimageparse_3d/1/model.py."""
        for model in (DECODE, TOKENIZE, TEXT):
            yield self._call(model, n_slices)
        in_flight: deque[Call] = deque()
        for first in range(0, n_slices, self.setting.window_size):
            n_in_window = min(self.setting.window_size, n_slices - first)
            yield self._call(PIPELINE, n_in_window)
            in_flight.append(start(self._segment_window(n_in_window)))
            if len(in_flight) == self.setting.windows_in_flight:
                yield in_flight.popleft()
        yield from in_flight
        yield self._call(ENCODE, n_slices)

    def _segment_window(self, n_slices: int) -> Process:
        yield self._call(IMAGE, n_slices)
        yield self._call(MASKS, n_slices)

    def send_canaries(self) -> Process:
        """The supervisor's; the next one waits long enough that they take a twentieth of the server at most."""
        pause_s = self.setting.canary_every_s
        while True:
            pause = Call()
            self.clock.at(self.clock.now + pause_s, pause.end)
            yield pause
            canary = Request(CANARY_SLICES, self.clock.now)
            self.take(canary)
            yield canary
            pause_s = max(self.setting.canary_every_s, CANARY_SHARE * (canary.ended - canary.arrived))


@dataclass(frozen=True)
class Traffic:
    """Poisson arrivals at machines behind a load balancer.

    draw: slices of so many volumes; warm_up: share of the volumes that is not counted; balancer: "least" sends a volume
    to the machine with the fewest requests under way and waiting, "random" to any
    """

    per_hour: float
    draw: Callable[[np.random.Generator, int], Sequence[int]]
    n_volumes: int
    n_machines: int = 1
    balancer: str = "least"
    warm_up: float = 0.2


@dataclass
class Run:
    """The requests in the order of their arrival, and for how long devices were busy between the watched seconds."""

    requests: list[Request] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)
    watched: tuple[float, float] = (0.0, 0.0)
    busy_s: float = 0.0


def simulate(setting: Setting, times: Times, traffic: Traffic, rng: np.random.Generator) -> Run:
    """Until the last volume is answered or refused; watched from the end of the warm-up to the last arrival."""
    n, n_machines = traffic.n_volumes, traffic.n_machines
    arrivals = np.sort(rng.uniform(0, 3600 * n / traffic.per_hour, n))  # Poisson, given how many come
    sizes, tosses = traffic.draw(rng, n), rng.integers(n_machines, size=n)
    clock = Clock()
    servers = [Server(clock, setting, times) for _ in range(n_machines)]
    run = Run([Request(int(size), float(at)) for size, at in zip(sizes, arrivals, strict=True)], servers)
    run.watched = (float(arrivals[int(n * traffic.warm_up)]), float(arrivals[-1]))
    n_open = n

    def close() -> None:
        nonlocal n_open
        n_open -= 1

    def arrive(request: Request, toss: int) -> None:
        request.then(close)
        turned = servers[toss:] + servers[:toss]  # among equals the first is taken
        server = turned[0] if traffic.balancer == "random" else min(turned, key=Server.outstanding)
        server.take(request)

    def count_busy(sign: int) -> None:
        for device in (device for server in servers for device in server.devices):
            device.advance()
            run.busy_s += sign * device.busy_s

    for time, sign in zip(run.watched, (-1, 1), strict=True):
        clock.at(time, partial(count_busy, sign))
    for request, toss in zip(run.requests, tosses, strict=True):
        clock.at(request.arrived, partial(arrive, request, int(toss)))
    for server in servers if setting.canary_every_s else []:
        start(server.send_canaries())
    clock.run(until=lambda: n_open == 0)
    return run
