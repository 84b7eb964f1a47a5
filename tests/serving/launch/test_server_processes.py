"""The server's processes, as /proc shows them."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import closing

import pytest
from helpers.running_server import PATIENCE_S, wait_until
from medimageparse_serving.launch.environments import server_starts
from medimageparse_serving.launch.server_processes import children, is_running, own_memory, while_running

# takes a connection and starts a process that has it too, as tritonserver does with a Python step
SERVER = """
import os, socket, time
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
connection, _ = listening.accept()
if os.fork() == 0:
    connection.send(b"!")
time.sleep(600)
"""


def test_processes_are_found():
    assert os.getpid() in children(os.getppid())
    assert is_running(os.getpid())
    assert not is_running(2**22 + 1)


def test_a_process_may_have_any_name():
    program = "import pathlib; pathlib.Path('/proc/self/comm').write_bytes(b') \\xff\\xc3'); print(flush=True); input()"
    command = [sys.executable, "-c", program, "tritonserver"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as named:
        named.stdout.readline()
        assert named.pid in children(os.getpid())
        assert is_running(named.pid)
        assert own_memory(named.pid) > 0
        assert server_starts()
        named.communicate(b"\n")
    assert named.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_nobody_waits_for_a_server_that_is_gone(number):
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, start_new_session=True) as server:
        port = int(server.stdout.readline())
        with closing(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)) as connection:
            assert connection.recv(1) == b"!"
            [step] = children(server.pid)
            server.send_signal(number)
            assert while_running(server.pid, lambda: connection.recv(1)) == b""  # not a TimeoutError
    wait_until(lambda: not is_running(step))


def test_what_asks_a_server_gives_its_answer_or_error():
    assert while_running(os.getpid(), lambda: "ready") == "ready"
    with pytest.raises(ConnectionError, match="ended"):
        while_running(os.getpid(), lambda: (_ for _ in ()).throw(ConnectionError("ended")))
