"""A storm: clients ask both models without a pause while processes of the server are killed or stopped.

    .venv/bin/python benchmarks/storm.py   # 8 clients, something hit every 15 s for 4 minutes: results/storm.csv

Victims and requests are drawn by the seed: good and wrong ones, over gRPC and HTTP. The clients try again by
themselves, as they come; what they raise in spite of it counts as an error. A model is away for the longest time
between two right answers after a hit, until the next hit: `away` is the model that suffers more, `other` the one that
suffers less. The row `nothing` is the same before the first hit. The exit status is 0 only if no answer was wrong, no
caller saw an error, and no process and no shared memory is left at the end.
"""

import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import psutil
from medimageparse_client import MedImageParseError
from processes import family, model_of
from recording import RESULTS, append_row, conditions, median, parser_of
from soak import N_CLIENTS, PACKAGES, POLL_S, answer_of, requests, share_apart, supervised, tritonserver_of

N_HITS, HIT_EVERY_S, SEED, ENDING_S = 16, 15.0, 0, 30.0
MODELS = ("volume", "image")  # as the names of requests that are answered begin
NOTHING = "nothing"
# hits, with how often each is drawn
KINDS = {("step", signal.SIGKILL): 6, ("step", signal.SIGSTOP): 2, ("tritonserver", signal.SIGKILL): 1}
PREFIX = re.compile(r"shm-region-prefix-name=(medimageparse-\w{8})")
Hit = tuple[str, signal.Signals]


@dataclass
class Stormed:
    """right: model and moment of each right answer; hits: what was hit and when, NOTHING at the start."""

    right: list[tuple[str, float]] = field(default_factory=list)
    hits: list[tuple[str, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)
    n_done: int = 0
    ended: float = 0.0

    def away(self) -> Iterator[tuple[str, list[float]]]:
        """What was hit, and how many seconds each model was away then, the shorter time first."""
        for (what, start), (_, end) in pairwise([*self.hits, ("", self.ended)]):
            came = [[start, *(t for kind, t in self.right if kind == m and start < t < end), end] for m in MODELS]
            yield what, sorted(max(b - a for a, b in pairwise(sorted(times))) for times in came)


def storm(n_clients: int, hits: Sequence[Hit], hit_every_s: float, seed: int) -> Stormed:
    """Hits a server of the demo models while clients ask it; the first hit after hit_every_s, as the others."""
    stormed, lock, ended, rng = Stormed(), threading.Lock(), threading.Event(), random.Random(seed)
    seen: set[psutil.Process] = set()
    names: set[str] = set()
    with supervised() as server:
        launcher = psutil.Process(server.process.pid)
        kinds = [request for request in requests() if request.timeout_s > 1]  # a caller who gives up gets no answer
        alone = {kind.name: answer_of(server, kind, "grpc") for kind in kinds}

        def ask(client: int) -> None:
            draw = random.Random(f"{seed} {client}")
            while not ended.is_set():
                request, error, found = draw.choice(kinds), "", ""
                try:
                    found = answer_of(server, request, draw.choice(("grpc", "http")))
                except MedImageParseError as raised:
                    error = type(raised).__name__
                with lock:
                    stormed.n_done += 1
                    if error or found == "gave up":
                        stormed.errors[error or "RequestTimeout"] += 1
                    elif share_apart(found, alone[request.name]):
                        stormed.wrong.append(request.name)
                    else:
                        stormed.right.append((request.name.partition(" ")[0].rstrip(","), time.monotonic()))

        with ThreadPoolExecutor(n_clients) as pool:
            stormed.hits.append((NOTHING, time.monotonic()))
            clients = [pool.submit(ask, client) for client in range(n_clients)]
            try:
                for what, number in hits:
                    time.sleep(hit_every_s)
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
    while True:
        triton = tritonserver_of(psutil.Process(server.process.pid))
        steps = [step for step in triton.children() if step.status() in ("running", "sleeping")] if triton else []
        if steps:
            return triton, triton if what == "tritonserver" else rng.choice(sorted(steps, key=model_of))
        time.sleep(POLL_S)


def left_over(seen: set[psutil.Process], names: set[str]) -> list[str]:
    """Programs that still run, and files in /dev/shm whose names begin with one of `names`."""
    alive = psutil.wait_procs(seen, ENDING_S)[1]
    alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    files = [file.name for file in Path("/dev/shm").iterdir() if file.name.startswith(tuple(names))]
    return [*map(model_of, alive), *files]


def main() -> int:
    parser = parser_of(__doc__, results=RESULTS / "storm.csv", work=False)
    for name, default in {"clients": N_CLIENTS, "hits": N_HITS, "hit-every": HIT_EVERY_S, "seed": SEED}.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    options = parser.parse_args()
    hits = random.Random(options.seed).choices(list(KINDS), list(KINDS.values()), k=options.hits)
    here = conditions(PACKAGES) | {"networks": "DEMO and DEMO_2D", "clients": options.clients, "seed": options.seed}
    stormed = storm(options.clients, hits, options.hit_every, options.seed)
    totals = {"answers": stormed.n_done, "wrong": len(stormed.wrong), "errors": stormed.errors.total()}
    away = list(stormed.away())
    for what in dict.fromkeys(what for what, _ in away):
        others, mine = zip(*(seconds for name, seconds in away if name == what), strict=True)
        row = {"hit": what, "times": len(mine), "away_s": median(mine), "away_worst_s": max(mine)}
        row |= {"other_s": median(others), "other_worst_s": max(others), **totals, "left": len(stormed.left)}
        append_row(options.results, here | row)
        print(row)
    print(*stormed.errors.items(), *sorted(set(stormed.wrong)), *stormed.left, sep="\n")
    return 1 if stormed.wrong or stormed.errors or stormed.left else 0


if __name__ == "__main__":
    sys.exit(main())
