"""Finds a tritonserver: the container's, else the real one inside the nvidia-pytriton wheel."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.leftovers import plain_link

# what needs nothing but python steps
CPU_RUNTIMES = ("cpu", "cpu-bf16")


@dataclass(frozen=True)
class Installation:
    """A tritonserver binary with the flags and the environment that it needs."""

    binary: str
    flags: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


def is_embedded() -> bool:
    """Whether the server is the wheel's 2.51, whose HTTP port a small request can end: see SECURITY.md."""
    return shutil.which("tritonserver") is None


def find_installation(runtime: str, scratch: Path) -> Installation:
    """tritonserver from PATH (the container), else the one inside the nvidia-pytriton wheel."""
    on_path = shutil.which("tritonserver")
    if on_path:
        return Installation(on_path)
    if (platform.system(), platform.machine(), platform.libc_ver()[0]) != ("Linux", "x86_64", "glibc"):
        raise ServeError(
            "there is no tritonserver on PATH, and the one in the nvidia-pytriton wheel runs only on Linux x86_64 with "
            "glibc; use the container (Dockerfile) on this machine"
        )
    if runtime not in CPU_RUNTIMES:
        raise ServeError(
            f"RUNTIME={runtime} needs the tritonserver of the container (Dockerfile): there is none on PATH, and the "
            "one in the nvidia-pytriton wheel knows RUNTIME=cpu and cpu-bf16 only"
        )
    return wheel_installation(scratch)


def wheel_installation(scratch: Path) -> Installation:
    """Lays out a backend folder in `scratch` for the wheel's server and the interpreter that runs this file."""
    package = importlib.util.find_spec("pytriton")
    if package is None or package.origin is None:
        raise ServeError("there is no tritonserver on PATH and no nvidia-pytriton in this environment: make install")
    if int(importlib.metadata.version("numpy").split(".")[0]) >= 2:
        # With numpy 2 this server's python backend answers success with empty tensors.
        raise ServeError("the tritonserver of the nvidia-pytriton wheel needs numpy < 2: make install")
    wheel = Path(package.origin).parent / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise ServeError(f"the nvidia-pytriton wheel has no python backend for Python {version}; use 3.11 or 3.12")
    bin_folder = Path(sys.executable).parent
    if not (bin_folder / "python3").exists():
        raise ServeError("there is no python3 beside the running interpreter; start this in a virtual environment")
    backends = scratch / "backends"
    shutil.copytree(wheel / "backends" / "python", backends / "python")
    shutil.copy2(stub, backends / "python")
    # Links, because a folder on PATH or LD_LIBRARY_PATH cannot have every name. An interpreter finds its packages from
    # the folder above the one it was found in.
    python = plain_link(scratch, "environment", bin_folder.parent) / bin_folder.name
    # The interpreter's own libpython comes first: with another one in the way the stub runs the wrong interpreter.
    libraries = [
        plain_link(scratch, "libpython", find_libpython()),
        plain_link(scratch, "libraries", wheel.parents[1] / "nvidia_pytriton.libs"),
        os.environ.get("LD_LIBRARY_PATH"),
    ]
    return Installation(
        str(wheel / "bin" / "tritonserver"),
        (f"--backend-directory={backends}", f"--cache-directory={wheel / 'caches'}"),
        (
            ("LD_LIBRARY_PATH", ":".join(str(folder) for folder in libraries if folder)),
            ("PATH", f"{python}:{os.environ.get('PATH', os.defpath)}"),
        ),
    )


def find_libpython() -> Path:
    """The folder of this interpreter's shared library."""
    library = sysconfig.get_config_var("INSTSONAME") or ""
    libdir = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    for folder in (libdir, libdir / (sysconfig.get_config_var("MULTIARCH") or ""), Path(sys.base_prefix) / "lib"):
        if ".so" in library and (folder / library).exists():
            return folder
    raise ServeError(
        "this Python has no shared libpython, which Triton's python backend needs: install libpython3.X of your "
        "distribution, or a Python built with --enable-shared, and make the environment again"
    )
