"""Peak memory of a tritonserver and its python steps, and how busy others kept the machine."""

import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

SAMPLES_EVERY_S = 0.25
GROWN = 1.01  # of the resident set: then the proportional one is asked for, which stops a large process for 20 to 50 ms


class PeakMemory(threading.Thread):
    """Samples a process and all below it in the background: `with PeakMemory(pid) as memory: ...`.

    peak_rss: the largest sum of resident sets, in bytes; a shared page counts once for each process that maps it
    peak_pss: the same with shared pages split among those processes, which is what the machine really gives, within a
    percent or so; 0 where the kernel does not tell
    of_process: the largest resident set of each process, by model name
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root, self.ended = psutil.Process(pid), threading.Event()
        self.peak_rss, self.peak_pss, self.rss_of_pss = 0, 0, 0.0
        self.of_process: dict[str, int] = {}
        self.model_of = cache(model_of)

    def __enter__(self) -> "PeakMemory":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        while not self.ended.wait(SAMPLES_EVERY_S):
            self.sample()
        self.sample()

    def sample(self) -> None:
        sets = resident_sets(self.root)
        for process, rss in sets.items():
            name = self.model_of(process)
            self.of_process[name] = max(self.of_process.get(name, 0), rss)
        total = sum(sets.values())
        self.peak_rss = max(self.peak_rss, total)
        if total > GROWN * self.rss_of_pss:
            self.rss_of_pss, pss = total, 0
            for process in sets:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    pss += process.memory_full_info().pss
            self.peak_pss = max(self.peak_pss, pss)

    def columns(self, names: tuple[str, ...]) -> dict[str, object]:
        """In GB, for a row of results."""
        sums = {"peak_pss_gb": self.peak_pss / 1e9 or "", "peak_rss_sum_gb": self.peak_rss / 1e9}
        return sums | {f"rss_{name}_gb": self.of_process.get(name, 0) / 1e9 for name in names}


def family(root: psutil.Process) -> list[psutil.Process]:
    """A process and all below it; empty once it has ended."""
    with suppress(psutil.NoSuchProcess):
        return [root, *root.children(recursive=True)]
    return []


def resident_sets(root: psutil.Process) -> dict[psutil.Process, int]:
    """In bytes, of a process and all below it."""
    sets = {}
    for process in family(root):
        with suppress(psutil.NoSuchProcess):
            sets[process] = process.memory_info().rss
    return sets


def model_of(process: psutil.Process) -> str:
    """The model that a python step serves, the program's name otherwise; two instances of a model share a name."""
    with suppress(psutil.NoSuchProcess):
        served = [Path(argument) for argument in process.cmdline()[1:] if argument.endswith(".py")]
        return served[0].parents[1].name if served else process.name()
    return ""


def cpu_seconds(root: psutil.Process) -> float:
    """What a process and all below it have used so far, in user and system time."""
    used = 0.0
    for process in family(root):
        with suppress(psutil.NoSuchProcess):
            used += sum(process.cpu_times()[:2])
    return used


class OtherLoad:
    """Which share of the cores other programs took since the start, and the host's other guests as far as it tells."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)
        self.start = self._state()

    def share(self) -> float:
        busy, ours, now = (end - start for start, end in zip(self.start, self._state(), strict=True))
        return max(0.0, busy - ours) / (now * psutil.cpu_count())

    def _state(self) -> tuple[float, float, float]:
        """Seconds that all cores were busy, that the process, all below it and this program used, and the time."""
        cores, here = psutil.cpu_times(), psutil.Process()
        ours = cpu_seconds(self.root) + (0.0 if here == self.root else sum(here.cpu_times()[:2]))
        busy = cores.user + cores.nice + cores.system + cores.irq + cores.softirq + cores.steal
        return busy, ours, time.monotonic()
