"""Peak memory of a tritonserver and its python steps, and how busy others kept the machine, from /proc."""

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

SAMPLES_EVERY_S = 0.25
GROWN = 1.01  # of the resident set: then the proportional one is asked for, which stops a large process for 20 to 50 ms


class PeakMemory:
    """Samples all processes of a session in the background: `with PeakMemory(session) as memory: ...`.

    peak_rss: the largest sum of resident sets, in bytes; a shared page counts once for each process that maps it
    peak_pss: the same with shared pages split among those processes, which is what the machine really gives, within a
    percent or so; None where the kernel does not tell
    of_process: each process's own largest resident set since it started, by model name
    """

    def __init__(self, session: int) -> None:
        self.session = session
        self.peak_rss = 0
        self.peak_pss: int | None = None
        self._rss_of_peak_pss = 0.0
        self.of_process: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        self.sample()
        while not self._ended.wait(SAMPLES_EVERY_S):
            self.sample()
        self.sample()

    def sample(self) -> None:
        folders = session_processes(self.session)
        rss = total(field(folder / "status", "VmRSS") for folder in folders)
        self.peak_rss = max(self.peak_rss, rss)
        if rss > GROWN * self._rss_of_peak_pss:
            self._rss_of_peak_pss = rss
            pss = [field(folder / "smaps_rollup", "Pss") for folder in folders]
            if any(value is not None for value in pss):
                self.peak_pss = max(self.peak_pss or 0, total(pss))
        for folder in folders:
            name, peak = process_name(folder), field(folder / "status", "VmHWM")
            if name and peak:
                self.of_process[name] = max(self.of_process.get(name, 0), peak)


class OtherLoad:
    """Which share of the cores other programs took since the start, and the host's other guests as far as it tells."""

    def __init__(self, session: int) -> None:
        self.session = session
        self.start = self._state()

    def share(self) -> float:
        busy, ours, now = (end - start for start, end in zip(self.start, self._state(), strict=True))
        return max(0.0, busy - ours) / (now * (os.cpu_count() or 1))

    def _state(self) -> tuple[float, float, float]:
        """Seconds that all cores were busy, that the session and this program used, and the time."""
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle = ticks[3] + ticks[4]
        ours = sum(cpu_ticks(folder) for folder in (*session_processes(self.session), Path("/proc/self")))
        per_second = os.sysconf("SC_CLK_TCK")
        return (sum(ticks) - idle) / per_second, ours / per_second, time.monotonic()


def cpu_ticks(folder: Path) -> int:
    """User and system time of a process; 0 for one that is gone."""
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def session_processes(session: int) -> list[Path]:
    """The /proc folders of a session's processes."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == session:
                found.append(folder)
        except ProcessLookupError:
            continue
    return found


def field(file: Path, name: str) -> int | None:
    """A field given in kB, in bytes; None for a process that is gone."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def process_name(folder: Path) -> str:
    """The model that a python step serves, the program's name otherwise; two instances of a model share a name."""
    try:
        arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    served = [Path(argument) for argument in arguments[1:] if argument.endswith(".py")]
    return served[0].parents[1].name if served else Path(arguments[0]).name


def total(values: Iterable[int | None]) -> int:
    return sum(value for value in values if value)
