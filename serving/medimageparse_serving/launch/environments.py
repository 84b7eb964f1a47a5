"""The empty folders python_env_* that upstream's python backend makes in /tmp, whatever TMPDIR says.

One for each server; it goes with a server that ends, and stays when one is killed.
"""

import contextlib
import os
import re
import stat
from pathlib import Path

from medimageparse_serving.launch.server_processes import stat_of

NAME = re.compile(r"python_env_[A-Za-z0-9]{6}")
FOLDER = Path("/tmp")
STARTING_S = 600  # a server makes its folder within this time of its start
SLACK_S = 5  # between the clocks of files and processes


def sweep_environments(folder: Path = FOLDER) -> None:
    """Removes this user's, but for those that a server may have made that runs now, whoever started that."""
    starts_s = server_starts()
    for entry in os.listdir(folder):
        if not NAME.fullmatch(entry):
            continue
        with contextlib.suppress(OSError):  # not empty, or swept by someone else
            state = (folder / entry).lstat()
            is_ours = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
            if is_ours and not any(-SLACK_S < state.st_mtime - start_s < STARTING_S for start_s in starts_s):
                (folder / entry).rmdir()


def server_starts() -> list[float]:
    """When each running tritonserver was started: seconds since 1970."""
    boot_s = float(re.findall(r"^btime (\d+)", Path("/proc/stat").read_text(), re.MULTILINE)[0])
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"tritonserver" in (process / "cmdline").read_bytes():
                started = int(stat_of(process)[19])  # field 22
                found.append(boot_s + started / os.sysconf("SC_CLK_TCK"))
        except OSError:  # ended in the meantime
            continue
    return found
