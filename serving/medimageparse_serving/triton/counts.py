"""What a public model tells Prometheus of its requests. Triton's own counters take refusals and failures for successes.

No label holds anything that a caller sent. Canaries have a counter of their own.
"""

import time
from collections.abc import Iterable
from typing import Any

import triton_python_backend_utils as pb_utils

OUTCOMES = ANSWERED, REFUSED, FAILED, CANCELLED = "answered", "refused", "failed", "cancelled"
SECONDS = ("0.1", "0.3", "1", "3", "10", "30", "100", "300", "+Inf")
FAMILIES = {
    "medimageparse_requests_total": "Requests that ended, by outcome; no canaries",
    "medimageparse_refusals_total": "Refused requests, by the model that refused: what it reads is the mistake",
    "medimageparse_canaries_total": "Canaries of the launcher that ended, by outcome",
    "medimageparse_slices_total": "Slices, or tiles of an image, of answered requests",
    "medimageparse_prompts_total": "Prompts of answered requests",
    "medimageparse_answer_seconds_bucket": "Answered requests that took so many seconds or less, without their wait",
    "medimageparse_answer_seconds_sum": "Seconds that answered requests took",
    "medimageparse_answer_seconds_count": "Answered requests",
}


class Work:
    """One request: its id if the caller gave one, when it began and how it ended."""

    def __init__(self, request_id: str = "") -> None:
        self.request_id = request_id
        self.began_s = time.monotonic()
        self.is_canary, self.outcome, self.refused_by = False, FAILED, ""
        self.n_slices = self.n_prompts = 0

    def refuse(self, step: str) -> None:
        self.outcome, self.refused_by = REFUSED, step

    @property
    def is_refused(self) -> bool:
        return self.outcome == REFUSED

    def named(self, words: str) -> str:
        """A line of the log, with the id."""
        return f"{words} (request {self.request_id})" if self.request_id else words


class Counts:
    """The counters of one public model. All instances of it have the same, and each begins at 0 when it is loaded."""

    def __init__(self, model: str, steps: Iterable[str]) -> None:
        """`steps` are the models that it calls, which may refuse."""
        kind = pb_utils.MetricFamily.COUNTER
        self.model = model
        self.families = {name: pb_utils.MetricFamily(name, text, kind) for name, text in FAMILIES.items()}
        self.metrics: dict[tuple[str, str], Any] = {}
        for outcome in OUTCOMES:
            self._make("requests_total", outcome=outcome)
            self._make("canaries_total", outcome=outcome)
        for step in (model, *steps):
            self._make("refusals_total", by=step)
        for bound in SECONDS:
            self._make("answer_seconds_bucket", le=bound)
        for name in ("slices_total", "prompts_total", "answer_seconds_sum", "answer_seconds_count"):
            self._make(name)

    def _make(self, name: str, **labels: str) -> None:
        family = self.families[f"medimageparse_{name}"]
        self.metrics[name, "".join(labels.values())] = family.Metric(labels={"model": self.model} | labels)

    def _add(self, name: str, label: str = "", amount: float = 1) -> None:
        self.metrics[name, label].increment(amount)

    def add(self, work: Work) -> None:
        if work.is_canary:
            self._add("canaries_total", work.outcome)
            return
        self._add("requests_total", work.outcome)
        if work.outcome == REFUSED:
            self._add("refusals_total", work.refused_by or self.model)
        if work.outcome == ANSWERED:
            self._add_answer(work, time.monotonic() - work.began_s)

    def _add_answer(self, work: Work, seconds: float) -> None:
        self._add("slices_total", amount=work.n_slices)
        self._add("prompts_total", amount=work.n_prompts)
        self._add("answer_seconds_sum", amount=seconds)
        self._add("answer_seconds_count")
        for bound in SECONDS:
            if seconds <= float(bound):
                self._add("answer_seconds_bucket", bound)
