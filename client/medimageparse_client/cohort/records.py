"""What was done, beside the results: it survives whatever ends the command, and a second run reads it.

results/ID.nii.gz   the label map, or what --format names
results/ID.json     the server's report, with `cohort`: a Done. It comes last, so that where it is, all is there
failures/ID.json    a Failure, of a case that has no result
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from medimageparse_client.cohort.case import Case
from medimageparse_client.cohort.inputs import hash_of, stamp_of
from medimageparse_client.files import TEMPORARY, write_file

LEFTOVERS, LEFT_AFTER_S = TEMPORARY.format("*"), 3600.0  # nobody writes one file for so long


@dataclass(frozen=True)
class Done:
    """
    request: digest of the wish; input_stamp, input_sha256: of the volume; output_sha256: of the file `output`
    seconds: from the request to the answer, of the try that was answered
    """

    id: str
    file: str
    request: str
    input_stamp: str
    input_sha256: str
    output: str
    output_bytes: int
    output_sha256: str
    seconds: float


@dataclass(frozen=True)
class Failure:
    """
    kind: one word for sums and logs; reason: a sentence for the caller's own table, which may name the caller's file
    tries: how often the case was asked and failed, in all runs
    """

    id: str
    file: str
    request: str
    input_stamp: str
    kind: str
    reason: str
    tries: int


class Reported(msgspec.Struct):
    cohort: Done
    prompts: list[dict[str, Any]]
    networks: Any = None


class Records:
    """The results and failures of a cohort in a folder; several processes may use it for different cases."""

    def __init__(self, folder: Path) -> None:
        self.results, self.failures = folder / "results", folder / "failures"

    def report_of(self, case: Case) -> Path:
        return self.results / f"{case.id}.json"

    def output_of(self, case: Case) -> Path:
        return self.results / f"{case.id}{case.wish.ending}"

    def failure_path(self, case: Case) -> Path:
        return self.failures / f"{case.id}.json"

    def reported(self, case: Case) -> Reported | None:
        """What was left by a run that asked the same of this case; the volume may have changed since."""
        try:
            told = msgspec.json.decode(self.report_of(case).read_bytes(), type=Reported)
            size = (self.results / told.cohort.output).stat().st_size
        except (OSError, msgspec.DecodeError):
            return None
        is_same = told.cohort.request == case.wish.digest() and told.cohort.output_bytes == size
        return told if is_same else None

    def failure(self, case: Case) -> Failure | None:
        """That of the same request."""
        try:
            told = msgspec.json.decode(self.failure_path(case).read_bytes(), type=Failure)
        except (OSError, msgspec.DecodeError):
            return None
        return told if told.request == case.wish.digest() else None

    def is_done(self, case: Case, *, by_content: bool) -> bool:
        """Whether the result is that of the volume as it is now.

        by_content: reads volume and result, also where size and time of the volume are those of before
        """
        if not (told := self.reported(case)):
            return False
        if by_content and hash_of(self.results / told.cohort.output) != told.cohort.output_sha256:
            return False
        if told.cohort.input_stamp == stamp_of(case.source) and not by_content:
            return True
        try:
            return told.cohort.input_sha256 == hash_of(case.source)
        except OSError:
            return False

    def has_failed(self, case: Case) -> bool:
        """Whether asking again would fail again, as far as one knows."""
        told = self.failure(case)
        return told is not None and told.input_stamp == stamp_of(case.source)

    def keep(self, case: Case, stamp: str, digest: str, seconds: float, data: bytes, report: dict[str, Any]) -> None:
        """Writes a result, and last its report."""
        output = self.output_of(case)
        self.forget(case)
        write_file(output, data)
        done = Done(
            case.id,
            str(case.source),
            case.wish.digest(),
            stamp,
            digest,
            output.relative_to(self.results).as_posix(),
            len(data),
            sha256(data).hexdigest(),
            seconds,
        )
        told = report | {"cohort": msgspec.to_builtins(done)}
        write_file(self.report_of(case), msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n")
        self.failure_path(case).unlink(missing_ok=True)

    def keep_failure(self, case: Case, stamp: str, kind: str, reason: str) -> None:
        """A result of another volume or wish does not stay beside it."""
        before = self.failure(case)
        tries = 1 + (before.tries if before else 0)
        failure = Failure(case.id, str(case.source), case.wish.digest(), stamp, kind, reason, tries)
        self.forget(case)
        write_file(self.failure_path(case), msgspec.json.encode(failure) + b"\n")

    def forget(self, case: Case) -> None:
        """Takes away what lies there of another volume or wish: the report first, which says that all is there."""
        report = self.report_of(case)
        with suppress(OSError, msgspec.DecodeError):
            told = msgspec.json.decode(report.read_bytes(), type=Reported)
            report.unlink()
            (self.results / told.cohort.output).unlink(missing_ok=True)
        report.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes what a killed run left half written."""
        oldest = time.time() - LEFT_AFTER_S
        for folder in (self.results, self.failures):
            for path in folder.rglob(LEFTOVERS):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < oldest:
                        path.unlink()
