"""What the supervisor tells Prometheus, on the probe port under /metrics: what tritonserver cannot say of itself."""

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from medimageparse_contract.version import VERSION

from medimageparse_serving.launch.leftovers import SHM

PATH, CONTENT_TYPE = "/metrics", "text/plain; version=0.0.4; charset=utf-8"
SHOWN_DIGITS = 12  # of a checkpoint's SHA-256
FAMILIES = {
    "medimageparse_ready": ("gauge", "Whether /ready says 200"),
    "medimageparse_restarts_total": ("counter", "Restarts of tritonserver by the supervisor"),
    "medimageparse_steps_loaded_again_total": ("counter", "Python steps that ended and were loaded again, each alone"),
    "medimageparse_canary_right_timestamp_seconds": ("gauge", "When the last right answer to a canary came"),
    "medimageparse_canary_wrong_total": (
        "counter",
        "Canaries with a wrong answer, an error or none, which were sent again",
    ),
    "medimageparse_canary_seconds": ("gauge", "How long the last right canary took"),
    "medimageparse_shm_free_bytes": ("gauge", "Free room in /dev/shm"),
    "medimageparse_shm_size_bytes": ("gauge", "Size of /dev/shm"),
    "medimageparse_model_info": ("gauge", "What is served: runtime, version, and the checkpoint's SHA-256, shortened"),
}


def checkpoints(repository: Path, models: Sequence[str]) -> dict[str, str]:
    """Each public model with the beginning of its checkpoint's SHA-256, as its networks were exported."""
    written = {model: json.loads((repository / model / "1" / "networks.json").read_text()) for model in models}
    return {model: str(networks.get("checkpoint_sha256", ""))[:SHOWN_DIGITS] for model, networks in written.items()}


class ServiceMetrics:
    """Counts of one program, over all restarts of its server. Safe with several threads."""

    def __init__(self, runtime: str, checkpoint_of: dict[str, str]) -> None:
        self.lock = threading.Lock()
        self.samples = {"medimageparse_restarts_total": 0.0, "medimageparse_steps_loaded_again_total": 0.0}
        for model, checkpoint in checkpoint_of.items():
            self.samples[f'medimageparse_canary_wrong_total{{model="{model}"}}'] = 0
            labels = f'model="{model}",runtime="{runtime}",version="{VERSION}",checkpoint="{checkpoint}"'
            self.samples[f"medimageparse_model_info{{{labels}}}"] = 1

    def count_restart(self) -> None:
        with self.lock:
            self.samples["medimageparse_restarts_total"] += 1

    def count_loaded_again(self, n_steps: int) -> None:
        with self.lock:
            self.samples["medimageparse_steps_loaded_again_total"] += n_steps

    def canary_is_right(self, model: str, took_s: float) -> None:
        with self.lock:
            self.samples[f'medimageparse_canary_right_timestamp_seconds{{model="{model}"}}'] = time.time()
            self.samples[f'medimageparse_canary_seconds{{model="{model}"}}'] = took_s

    def canary_is_wrong(self, model: str) -> None:
        with self.lock:
            self.samples[f'medimageparse_canary_wrong_total{{model="{model}"}}'] += 1

    def text(self, is_ready: bool) -> str:
        """In the format of Prometheus."""
        shm = os.statvfs(SHM)
        with self.lock:
            samples = self.samples | {
                "medimageparse_ready": int(is_ready),
                "medimageparse_shm_free_bytes": shm.f_bavail * shm.f_frsize,
                "medimageparse_shm_size_bytes": shm.f_blocks * shm.f_frsize,
            }
        lines = []
        for family, (kind, meaning) in FAMILIES.items():
            lines += [f"# HELP {family} {meaning}", f"# TYPE {family} {kind}"]
            lines += [f"{name} {value!r}" for name, value in samples.items() if name.partition("{")[0] == family]
        return "\n".join(lines) + "\n"
