"""The server's processes, as /proc shows them."""

import os

from medimageparse_serving.launch.server_processes import children, is_running


def test_processes_are_found():
    assert os.getpid() in children(os.getppid())
    assert is_running(os.getpid())
    assert not is_running(2**22 + 1)
