"""A storm: clients ask both models without a pause while processes of the server are killed or stopped.

    .venv/bin/python benchmarks/storm.py   # 8 clients, something hit every 15 s for 4 minutes: results/storm.csv

The seed draws victims and requests, good and wrong ones, over gRPC and HTTP. Clients try again by themselves; what they
raise all the same is an error. A model is away for the longest time between two right answers after a hit, until the
next hit: `away` is the model that suffers more, `other` the other. The row `nothing` is the same before the first hit.
The exit status is 0 only if no answer was wrong, no caller saw an error, no process and no shared memory is left.
"""

import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import psutil
from medimageparse_client import MedImageParseError
from processes import family, model_of
from recording import RESULTS, append_row, conditions, median, parser_of
from soak import N_CLIENTS, PACKAGES, answer_of, requests, tritonserver_of

N_HITS, HIT_EVERY_S, SEED, ENDING_S, POLL_S = 16, 15.0, 0, 30.0, 0.05
MODELS, NOTHING = ("volume", "image"), "nothing"  # models as the names of requests that are answered begin
KINDS = {("step", signal.SIGKILL): 6, ("step", signal.SIGSTOP): 2, ("tritonserver", signal.SIGKILL): 1}
PREFIX = re.compile(r"shm-region-prefix-name=(medimageparse-\w{8})")
Hit = tuple[str, signal.Signals]


@dataclass
class Stormed:
    """right: model and moment of each right answer; hits: what was hit and when, NOTHING at the start."""

    right: list[tuple[str, float]] = field(default_factory=list)
    hits: list[tuple[str, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    ended: float = 0.0

    def has_settled(self) -> bool:
        return {kind for kind, came in self.right.copy() if came > self.hits[-1][1]} >= set(MODELS)

    def away(self) -> Iterator[tuple[str, list[float]]]:
        """What was hit, and how many seconds each model was away then, the shorter time first."""
        for (what, start), (_, end) in pairwise([*self.hits, ("", self.ended)]):
            came = [[start, *(t for kind, t in self.right if kind == m and start < t < end), end] for m in MODELS]
            yield what, sorted(max(b - a for a, b in pairwise(sorted(times))) for times in came)


def storm(n_clients: int, hits: Sequence[Hit], hit_every_s: float, seed: int, settle_s: float = 0.0) -> Stormed:
    """Hits a server of the demo models while clients ask it, after settle_s at most for answers since the last hit."""
    stormed, ended, rng = Stormed(), threading.Event(), random.Random(seed)
    seen, names = set[psutil.Process](), set[str]()
    with supervised() as server:
        launcher = psutil.Process(server.process.pid)
        kinds = [request for request in requests() if request.timeout_s > 1]  # a caller who gives up gets no answer
        alone = {kind.name: answer_of(server, kind, "grpc") for kind in kinds}

        def ask(client: int) -> None:
            draw = random.Random(f"{seed} {client}")
            while not ended.is_set():
                request, found, failed = draw.choice(kinds), "gave up", "RequestTimeout"
                try:
                    found = answer_of(server, request, draw.choice(("grpc", "http")))
                except MedImageParseError as error:
                    failed = type(error).__name__
                if found == "gave up":
                    stormed.errors.append(failed)
                elif found != alone[request.name]:
                    stormed.wrong.append(request.name)
                else:
                    stormed.right.append((request.name.partition(" ")[0].rstrip(","), time.monotonic()))

        with ThreadPoolExecutor(n_clients) as pool:
            stormed.hits.append((NOTHING, time.monotonic()))
            clients = [pool.submit(ask, client) for client in range(n_clients)]
            try:
                for what, number in hits:
                    time.sleep(hit_every_s)
                    latest = time.monotonic() + settle_s
                    while time.monotonic() < latest and not stormed.has_settled():
                        time.sleep(POLL_S)
                    triton, victim = find_victim(server, what, rng)
                    seen.update(family(launcher))
                    names.add(PREFIX.search(" ".join(triton.cmdline()))[1])
                    victim.send_signal(number)
                    stormed.hits.append((f"{what} {number.name}", time.monotonic()))
                time.sleep(hit_every_s)
            finally:
                stormed.ended = time.monotonic()
                ended.set()
        for client in clients:
            client.result()
        seen.update(family(launcher))
    stormed.left = left_over(seen, names)
    return stormed


def find_victim(server: SimpleNamespace, what: str, rng: random.Random) -> tuple[psutil.Process, psutil.Process]:
    """The tritonserver, and itself or one of its Python steps drawn by rng; waits while there is none."""
    while server.process.poll() is None:
        triton = tritonserver_of(psutil.Process(server.process.pid))
        steps = [step for step in triton.children() if step.status() in ("running", "sleeping")] if triton else []
        if steps:
            return triton, triton if what == "tritonserver" else rng.choice(sorted(steps, key=model_of))
        time.sleep(POLL_S)
    raise SystemExit("serve.py gave up: nothing can be hit any more")


@contextmanager
def supervised() -> Iterator[SimpleNamespace]:
    """A serve.py of the demo models, as TritonServer says where it is."""
    command = [sys.executable, "-m", "medimageparse_demo.serve", "--runtime=cpu"]
    command += [f"--{name}-port=0" for name in ("http", "grpc", "metrics", "probe")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        urls = re.search(r"http (\S+), grpc (\S+),", process.stdout.readline())
        if urls is None:
            raise SystemExit("serve.py does not start: make serve-demo says why")
        try:
            yield SimpleNamespace(process=process, grpc_url=urls[2], http_url=urls[1])
        finally:
            process.terminate()
            process.communicate()


def left_over(seen: set[psutil.Process], names: set[str]) -> list[str]:
    """Programs that still run, and files in /dev/shm whose names begin with one of `names`."""
    still = psutil.wait_procs(seen, ENDING_S)[1]
    alive = [program for program in still if program.is_running() and program.status() != psutil.STATUS_ZOMBIE]
    files = [file.name for file in Path("/dev/shm").iterdir() if file.name.startswith(tuple(names))]
    return [*map(model_of, alive), *files]


def main() -> int:
    parser = parser_of(__doc__, results=RESULTS / "storm.csv", work=False)
    numbers = {"--clients": N_CLIENTS, "--hits": N_HITS, "--hit-every": HIT_EVERY_S, "--seed": SEED}
    for option, default in numbers.items():
        parser.add_argument(option, type=type(default), default=default)
    options = parser.parse_args()
    hits = random.Random(options.seed).choices(list(KINDS), list(KINDS.values()), k=options.hits)
    here = conditions(PACKAGES) | {"networks": "DEMO and DEMO_2D", "clients": options.clients, "seed": options.seed}
    stormed = storm(options.clients, hits, options.hit_every, options.seed)
    totals = {name: len(getattr(stormed, name)) for name in ("right", "wrong", "errors", "left")}
    away = list(stormed.away())
    for what in dict.fromkeys(what for what, _ in away):
        others, mine = zip(*(seconds for name, seconds in away if name == what), strict=True)
        row = {"hit": what, "times": len(mine), "away_s": median(mine), "away_worst_s": max(mine)}
        row |= {"other_s": median(others), "other_worst_s": max(others), **totals}
        append_row(options.results, here | row)
        print(row)
    print(*Counter(stormed.errors).items(), *sorted(set(stormed.wrong)), *stormed.left, sep="\n")
    return 1 if stormed.wrong or stormed.errors or stormed.left else 0


if __name__ == "__main__":
    sys.exit(main())
