"""The server's processes, as /proc shows them."""

import ctypes
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

PR_SET_CHILD_SUBREAPER = 36
TICK_S = 0.1

Answer = TypeVar("Answer")


def adopt_orphans() -> None:
    """Processes whose parent dies become ours, so that we can collect them, also where PID 1 does not."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def collect_orphans(server_pid: int) -> None:
    """Takes the exit codes of all ended children but the server's, which its owner wants."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == server_pid:
            return
        os.waitpid(ended.si_pid, 0)


def stat_of(process: Path) -> list[str]:
    """The fields of /proc/PID/stat from the third, the state, on; the name before it may hold any bytes."""
    return (process / "stat").read_text(errors="replace").rpartition(")")[2].split()


def is_running(pid: int) -> bool:
    """Whether a process exists, has not ended and was not stopped."""
    try:
        return stat_of(Path(f"/proc/{pid}"))[0] not in "ZT"
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:  # this process cannot look now, which says nothing of that one
        return True


def while_running(server_pid: int, ask: Callable[[], Answer]) -> Answer:
    """What `ask` gives, which asks the server. If that ends or is stopped meanwhile, all its processes are killed.

    Its Python steps hold its connections open, so that `ask` would go on to wait for a server that is gone.
    """
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask)
        while wait([answer], TICK_S).not_done:
            if not is_running(server_pid):
                with suppress(ProcessLookupError):
                    os.killpg(server_pid, signal.SIGKILL)
        try:
            return answer.result()
        finally:
            del answer  # an error and this frame would hold each other, and the connection


def command_line(pid: int) -> list[str]:
    """Its words; none of a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def own_memory(pid: int) -> int:
    """Bytes that a process shares with no file and no other process; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = stat_of(process)[1]
        except OSError:  # ended in the meantime
            continue
        if int(parent) == pid:
            found.append(int(process.name))
    return found
