"""How the launcher starts its children: they die with it, and leave no memory on a disk."""

import os
import sys
from collections.abc import Sequence

# A child is to die with whoever started it (more exactly: with the thread), however that ends. A core dump would hold
# images, prompts and keys; the filter is for machines that pipe dumps to a program whatever the limit says.
BEFORE = """
import ctypes, os, resource, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
try:
    with open("/proc/self/coredump_filter", "w") as file:
        file.write("0")
except OSError:  # a kernel without core dumps
    pass
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def as_child(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` as such a child of this process."""
    return [sys.executable, "-c", BEFORE, str(os.getpid()), *command]
