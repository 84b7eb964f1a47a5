"""The flags and the environment that every tritonserver here is started with, whatever it serves."""

import os
import re
import secrets
from collections.abc import Mapping

from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.leftovers import SHM

# With these anybody could replace a model, write the log over a file or learn what others send; the key opens them.
RESTRICTED_APIS = "model-repository,shared-memory,statistics,trace,logging"
ADMIN_HEADER, ADMIN_KEY = "admin-key", "MEDIMAGEPARSE_ADMIN_KEY"
EXIT_TIMEOUT_S = 10  # for requests under way; an HTTP connection that a client left open uses it up too
# Features pass from encoder to decoder in it; what does not fit goes through the host's memory: docs/gpu.md.
CUDA_POOL_BYTES = 2 * 2**30
# Large pieces of memory in pages of 2 MiB: a volume of 33 MB is 16 page faults then, and not 8,000.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
KEEPALIVE_FLAGS = (
    # Otherwise a client that pings more than twice in five minutes without data is cut off: "Too many pings".
    "--grpc-http2-max-ping-strikes=0",
    # A client that is gone without a word is noticed within two minutes, and its request cancelled.
    "--grpc-keepalive-time=60000",
    "--grpc-keepalive-timeout=60000",
    "--grpc-keepalive-permit-without-calls=1",
    "--grpc-http2-max-pings-without-data=0",
)


def find_admin_key() -> str:
    """The operator's key from the environment, else a random one."""
    key = os.environ.get(ADMIN_KEY) or secrets.token_urlsafe(32)
    if not re.fullmatch(r"[\w-]{16,}", key, re.ASCII):
        raise ServeError(f"{ADMIN_KEY} is at least 16 letters, digits, - or _; left out, a random one is taken")
    return key


def access_flags(admin_key: str) -> list[str]:
    """The operator's APIs, closed by the key."""
    options = ("http-restricted-api", "grpc-restricted-protocol")
    return [f"--{option}={RESTRICTED_APIS}:{ADMIN_HEADER}={admin_key}" for option in options]


def address_flags(hosts: Mapping[str, str], ports: Mapping[str, int]) -> list[str]:
    """Numeric hosts; gRPC and libevhtp each have their own way of writing IPv6."""
    flags = []
    for name, host in hosts.items():
        if ":" in host:
            host = f"[{host}]" if name == "grpc" else f"ipv6:{host}"
        flags += [f"--{name}-port={ports[name]}", f"--{name}-address={host}"]
    return flags


def memory_flags(shm_prefix: str, n_gpus: int) -> list[str]:
    """Shared memory of python steps, memory of GPUs, and what may outlive an answer."""
    return [
        *(f"--cuda-memory-pool-byte-size={gpu}:{CUDA_POOL_BYTES}" for gpu in range(n_gpus)),
        "--grpc-infer-allocation-pool-size=0",  # else up to eight answered requests keep their volumes
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        f"--backend-config=python,shm-growth-byte-size={shm_growth_bytes()}",
    ]


def shm_growth_bytes() -> int:
    """What the shared memory of a python step grows by: much is fast, little fits into Docker's 64 MB."""
    shm = os.statvfs(SHM)
    return max(2**20, min(64 * 2**20, shm.f_blocks * shm.f_frsize // 64))
