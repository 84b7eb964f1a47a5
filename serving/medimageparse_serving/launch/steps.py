"""The Python steps of a running server: what ended, was stopped or holds too much memory is loaded again, alone.

tritonserver 2.51 never restarts a step that was killed and goes on to say that it is ready. To unload its model and to
load it again takes one or two seconds. Other models answer meanwhile, and requests under way wait for the step.
"""

import os
import re
import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from medimageparse_serving.launch import leftovers
from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.server_processes import (
    children,
    collect_orphans,
    command_line,
    is_running,
    own_memory,
    while_running,
)
from medimageparse_serving.launch.triton_server import TritonServer

UNLOADING_S = 10  # for Triton to hear of it
CODE = re.compile(r"/(\w+)/1/\w*model\.py$")  # of a model, as the command line of its process has it
MAX_TIMES, CALM_S = 3, 60  # a step that must be loaded again more often is not the only thing that is wrong


@dataclass(frozen=True)
class Fault:
    """What is wrong, and the models whose steps are to be loaded again; none: the server is to be started again."""

    sentence: str
    models: tuple[str, ...] = ()


class Steps:
    """Those of one server, since `look` was called last."""

    def __init__(self, server: TritonServer, memory_bytes: float = float("inf")) -> None:
        """A step may have so much memory of its own; what it shares with the server is not counted."""
        self.server, self.memory_bytes = server, memory_bytes
        self.model_of: dict[int, str] = {}
        self.healed: deque[tuple[float, str]] = deque(maxlen=100)

    def look(self) -> None:
        """Learns the processes of the server, whose models are all ready."""
        assert self.server.process is not None
        self.model_of = {pid: model_of(pid) for pid in children(self.server.process.pid) if is_running(pid)}

    def find_fault(self) -> Fault | None:
        assert self.server.process is not None
        collect_orphans(self.server.process.pid)
        if (code := self.server.process.poll()) is not None:
            return Fault(f"tritonserver ended with code {code}")
        if not is_running(self.server.process.pid):
            return Fault("tritonserver was stopped")
        if ended := [pid for pid in self.model_of if not is_running(pid)]:
            return self._fault_of(ended, "ended or was stopped")
        if self.memory_bytes < float("inf"):
            greedy = [pid for pid in self.model_of if own_memory(pid) > self.memory_bytes]
            return self._fault_of(greedy, "has more memory than a step may have") if greedy else None
        return None

    def _fault_of(self, pids: Sequence[int], what: str) -> Fault:
        models = tuple(sorted({self.model_of[pid] for pid in pids}))
        if not all(models):
            return Fault(f"a process of the server {what}")
        return Fault(f"a process of {', '.join(models)} {what}", models)

    def load_again(self, models: Sequence[str]) -> None:
        """Ends the processes of these models and loads them anew; ServeError where that does not help.

        Requests in another instance of a model are lost with it: Triton waits for that in vain which the dead one had.
        """
        assert self.server.process is not None
        self._note(models)
        try:
            while_running(self.server.process.pid, partial(self._load_again, models))
        except (OSError, ValueError):
            raise ServeError("tritonserver does not load it") from None
        leftovers.hide(self.server.shm_prefix.removesuffix("-"))
        self.look()

    def _load_again(self, models: Sequence[str]) -> None:
        control = self.server.control
        for model in models:
            control.unload(model, UNLOADING_S)
        for pid in (pid for pid, model in self.model_of.items() if model in models):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for model in models:
            control.load(model, self.server.ready_timeout_s)

    def _note(self, models: Sequence[str]) -> None:
        now = time.monotonic()
        for model in models:
            if sum(name == model and now - when < CALM_S for when, name in self.healed) >= MAX_TIMES:
                raise ServeError(f"{model} was loaded again {MAX_TIMES} times in {CALM_S} s")
        self.healed += [(now, model) for model in models]


def model_of(pid: int) -> str:
    """The model whose code a process runs, by its command line; "" if it runs another program."""
    return next((found[1] for word in command_line(pid) if (found := CODE.search(word))), "")
