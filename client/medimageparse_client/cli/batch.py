"""What `segment` and `segment-image` do: requests for one file or many, results written, sums told."""

import argparse
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from medimageparse_client.cli.connection import connect
from medimageparse_client.cli.console import (
    DONE,
    SOME_FAILED,
    bar_of_slices,
    describe,
    exit_code,
    silence,
    warn,
    write,
)
from medimageparse_client.cli.jobs import Job, Plan, encoding_of, make_plan
from medimageparse_client.cli.kinds import Kind
from medimageparse_client.cli.sources import Place, Source, Standard, load
from medimageparse_client.client import Client
from medimageparse_client.errors import ServerUnavailable
from medimageparse_client.files import write_file
from medimageparse_client.progress import Progress
from medimageparse_client.results.image_segmentation import ImageSegmentation
from medimageparse_client.results.segmentation import Segmentation
from medimageparse_client.retry import Retry

HEALTH_TIMEOUT_S = 60.0  # for a canary, which on a CPU takes seconds


@dataclass(frozen=True)
class Outcome:
    """
    table: what was found
    failures: each result that could not be made or written, and why; the others are written
    """

    table: str
    warnings: list[str]
    failures: list[tuple[Place, Exception]]


class Session:
    """What the requests of one run share."""

    def __init__(self, args: argparse.Namespace, prompts: tuple[str, ...]) -> None:
        self.args, self.prompts = args, prompts
        self.kind: Kind = args.kind
        self.retry = Retry(args.retry_for, self.is_segmenting, warn)
        self._clients: set[Client] = set()

    @contextmanager
    def client(self, timeout_s: float) -> Iterator[Client]:
        with connect(self.args, timeout_s) as client:
            self._clients.add(client)
            try:
                yield client
            finally:
                self._clients.discard(client)

    def check_server(self) -> None:
        """A wrong url or a server without the model is told at once; waiting for it is no use."""
        with self.client(HEALTH_TIMEOUT_S) as client:
            state = client.health()
        if not state.models.get(self.kind.model):
            raise state.error or ServerUnavailable(f"the server at {self.args.url} has not loaded {self.kind.model}")

    def is_segmenting(self) -> bool:
        """Whether the model answers now; one whose steps have crashed may still call itself ready."""
        with self.client(HEALTH_TIMEOUT_S) as client:
            return bool(client.health(canary=True).models.get(self.kind.model))

    def run(self, job: Job) -> Outcome:
        return self.answer(job, load(job.source, self.kind))

    def answer(self, job: Job, source: Path | bytes, progress: Progress | None = None) -> Outcome:
        """Segments one file and writes its results; one that cannot be written does not take the others with it."""
        result = self.retry.ask(lambda: self.ask(source, progress))
        failures: list[tuple[Place, Exception]] = []
        for option, place in job.results.items():
            try:
                put(place, self.kind.encode[option](result, encoding_of(place, self.kind.results[option])))
            except Exception as error:  # whatever it is, it is counted and told
                failures.append((place, error))
        return Outcome(self.kind.table(result), list(result.facts.warnings), failures)

    def ask(self, source: Path | bytes, progress: Progress | None) -> Segmentation | ImageSegmentation:
        with self.client(self.args.timeout) as client:
            return self.kind.segment(self.args, client, source, self.prompts, progress)

    def tell(self, source: Source, outcome: Outcome) -> None:
        for warning in outcome.warnings:
            warn(f"{source}: warning: {warning}")
        for place, error in outcome.failures:
            self.tell_failure(place, error)

    def tell_failure(self, name: Place, error: Exception) -> None:
        if self.args.debug:
            traceback.print_exception(error)
        warn(describe(error, name))

    def stop(self) -> None:
        """Ends waits, and over gRPC also what the server is working on."""
        self.retry.stop()
        clients = list(self._clients)
        if any(client.protocol == "http" for client in clients):
            warn("stopping; over HTTP requests under way are waited for, Ctrl-C again does not")
        for client in clients:
            if client.protocol == "grpc":
                client.close()


def segment(args: argparse.Namespace) -> int:
    plan = make_plan(args)
    for note in plan.notes:
        warn(note)
    for problem in plan.problems:
        warn(describe(problem))
    session = Session(args, plan.prompts)
    to_do = [job for job in plan.jobs if not (args.skip_existing and job.is_done())]
    return segment_one(session, to_do[0]) if plan.is_single and to_do else segment_many(session, plan, to_do)


def segment_one(session: Session, job: Job) -> int:
    try:
        source = load(job.source, session.kind)
    except OSError as error:
        session.tell_failure(job.source, error)
        return exit_code(error)
    session.check_server()
    try:
        with bar_of_slices(session.kind.has_slices) as progress:
            outcome = session.answer(job, source, progress)
    except Exception as error:  # as for several: told with the file's name
        session.tell_failure(job.source, error)
        return exit_code(error)
    write(sys.stderr if Standard.OUTPUT in job.results.values() else sys.stdout, outcome.table)
    session.tell(job.source, outcome)
    return exit_code(outcome.failures[0][1]) if outcome.failures else DONE


def segment_many(session: Session, plan: Plan, jobs: list[Job]) -> int:
    """Keeps a few requests in flight; a file that fails does not stop the others, a server that stays away does."""
    if jobs:
        session.check_server()
    tally = Tally(session, n_failed=len(plan.problems))
    executor = ThreadPoolExecutor(session.args.in_flight)
    job_of = {executor.submit(session.run, job): job for job in jobs}
    try:
        for future in tqdm(as_completed(job_of), total=len(jobs), unit=session.kind.noun, disable=None):
            tally.add(job_of.pop(future), future)
            if session.retry.final:
                break
    except KeyboardInterrupt:
        executor.shutdown(wait=False, cancel_futures=True)
        session.stop()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
    for future, job in job_of.items():
        tally.add(job, future)
    return tally.tell(plan, n_skipped=len(plan.jobs) - len(jobs))


@dataclass
class Tally:
    """How the files of a run ended."""

    session: Session
    n_failed: int
    n_done: int = 0
    n_left: int = 0

    def add(self, job: Job, future: Future[Outcome]) -> None:
        try:
            outcome = future.result()
        except CancelledError:
            self.n_left += 1
        except Exception as error:  # whatever it is, it is counted and told, and the others go on
            if error is self.session.retry.final:
                self.n_left += 1
            else:
                self.n_failed += 1
                self.session.tell_failure(job.source, error)
        else:
            self.session.tell(job.source, outcome)
            self.n_failed += bool(outcome.failures)
            self.n_done += not outcome.failures

    def tell(self, plan: Plan, n_skipped: int) -> int:
        """The sums; gives the exit code."""
        nouns, final = f"{self.session.kind.noun}s", self.session.retry.final
        skipped = f", {n_skipped} skipped, for their results are there" if n_skipped else ""
        write(sys.stdout, f"{self.n_done} of {len(plan.jobs)} {nouns} segmented{skipped}\n")
        if final:
            left = f"{self.n_left} {nouns} are left, and the same command with --skip-existing goes on with them"
            warn(f"{describe(final)}; {left}")
            return exit_code(final)
        return SOME_FAILED if self.n_failed else DONE


def put(place: Place, data: bytes) -> None:
    if isinstance(place, Path):
        write_file(place, data)
        return
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        raise OSError(error.errno, error.strerror, str(place)) from error
