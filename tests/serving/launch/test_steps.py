"""Steps of a server that is made up here, in real processes: which of them are ill, and how they are loaded again."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from helpers.running_server import PATIENCE_S, wait_until
from medimageparse_serving.launch import steps
from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.server_processes import is_running, own_memory
from medimageparse_serving.launch.steps import MAX_TIMES, Fault, Steps

MODELS = ("decode_volume", "encode_masks", "encode_masks")  # two instances of the last


class Control:
    """Starts the processes of a model when it is loaded, as tritonserver does; `refuses` says what goes wrong."""

    def __init__(self):
        self.processes, self.asked, self.refuses = [], [], None
        for model in MODELS:
            self.start(model)

    def start(self, model, code="import time; time.sleep(600)"):
        command = [sys.executable, "-c", code, f"/tmp/models/{model}/1/model.py"]
        process = subprocess.Popen(command)
        wait_until(lambda: steps.model_of(process.pid))  # a new process has no command line for a moment
        self.processes.append((model, process))

    def unload(self, model, timeout_s):
        self.asked.append(("unload", model))

    def load(self, model, timeout_s):
        self.asked.append(("load", model))
        for name, process in [one for one in self.processes if one[0] == model]:
            process.wait(PATIENCE_S)  # somebody ends it
            self.processes.remove((name, process))
        if self.refuses:
            raise self.refuses
        for name in MODELS:
            if name == model:
                self.start(name)

    def pids(self, name=None):
        return [process.pid for model, process in self.processes if name in (None, model)]


@pytest.fixture
def control():
    control = Control()
    yield control
    for _, process in control.processes:
        process.kill()
        process.wait()


@pytest.fixture
def watched(control, monkeypatch):
    monkeypatch.setattr(steps, "children", lambda pid: control.pids())
    monkeypatch.setattr(steps, "collect_orphans", lambda pid: None)  # they are pytest's
    process = SimpleNamespace(pid=os.getpid(), poll=lambda: None)
    server = SimpleNamespace(process=process, control=control, ready_timeout_s=10, shm_prefix="medimageparse-tests-")
    watched = Steps(server, memory_bytes=2**26)
    watched.look()
    return watched


def test_all_is_well(watched):
    assert sorted(watched.model_of.values()) == sorted(MODELS)
    assert watched.find_fault() is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_step_that_ended_or_was_stopped_is_loaded_again(watched, control, number):
    victim, well = control.pids("encode_masks")
    [other] = control.pids("decode_volume")
    os.kill(victim, number)
    wait_until(lambda: not is_running(victim))
    fault = watched.find_fault()
    assert fault == Fault("a process of encode_masks ended or was stopped", ("encode_masks",))
    watched.load_again(fault.models)
    assert control.asked == [("unload", "encode_masks"), ("load", "encode_masks")]
    assert not is_running(victim)
    assert not is_running(well)
    assert is_running(other)
    assert sorted(watched.model_of.values()) == sorted(MODELS)
    wait_until(lambda: watched.find_fault() is None)


def test_several_at_once(watched, control):
    for pid in control.pids():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, control.pids())))
    fault = watched.find_fault()
    assert fault.models == ("decode_volume", "encode_masks")
    watched.load_again(fault.models)
    assert [what for what, _ in control.asked] == ["unload", "unload", "load", "load"]


def test_a_step_with_too_much_memory_of_its_own_is_loaded_again(watched, control):
    control.start("decode_volume", "kept = b'x' * 2**27; import time; time.sleep(600)")
    [well, greedy] = control.pids("decode_volume")
    watched.look()
    wait_until(lambda: own_memory(greedy) > 2**26)
    fault = watched.find_fault()
    assert fault == Fault("a process of decode_volume has more memory than a step may have", ("decode_volume",))
    watched.load_again(fault.models)
    assert not is_running(greedy)
    assert watched.find_fault() is None


def test_shared_memory_is_not_a_steps_own(watched, control, tmp_path):
    code = "import mmap, time; kept = mmap.mmap(-1, 2**27); kept.write(b'x' * 2**27)"
    control.start("decode_volume", f"{code}; open({str(tmp_path / 'done')!r}, 'w'); time.sleep(600)")
    wait_until((tmp_path / "done").exists)
    wait_until(lambda: own_memory(control.pids("decode_volume")[1]) < 2**26)  # what was written from is given back
    watched.look()
    assert watched.find_fault() is None


def test_one_that_ends_again_and_again_is_not_healed_for_ever(watched):
    for _ in range(MAX_TIMES):
        watched.load_again(["decode_volume"])
    with pytest.raises(ServeError, match=f"decode_volume was loaded again {MAX_TIMES} times in 60 s"):
        watched.load_again(["decode_volume"])
    watched.load_again(["encode_masks"])


def test_a_server_that_does_not_load_it_is_told(watched, control):
    control.refuses = OSError("refused")
    with pytest.raises(ServeError, match="^tritonserver does not load it$"):
        watched.load_again(["decode_volume"])


def test_a_process_of_another_program_is_nobodys(watched, control):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    control.processes.append(("", other))
    watched.look()
    os.kill(other.pid, signal.SIGSTOP)
    wait_until(lambda: not is_running(other.pid))
    assert watched.find_fault() == Fault("a process of the server ended or was stopped")
