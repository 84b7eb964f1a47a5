"""Children of the launcher: no core dumps."""

import resource
import subprocess
from pathlib import Path

from medimageparse_serving.launch.child import as_child


def test_a_child_and_its_children_leave_no_memory_on_a_disk():
    """Also where dumps are piped to a program, which asks for no limit."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    script = "cat /proc/self/limits /proc/self/coredump_filter"
    told = subprocess.run(as_child(["sh", "-c", script]), capture_output=True, text=True, check=True, timeout=60).stdout
    [limit] = [line.split() for line in told.splitlines() if line.startswith("Max core file size")]
    assert limit[4:6] == ["0", "0"]
    if Path("/proc/self/coredump_filter").exists():
        assert int(told.splitlines()[-1], 16) == 0
    assert resource.getrlimit(resource.RLIMIT_CORE) == before
