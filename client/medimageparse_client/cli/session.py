"""What the requests of one run share: the server, the places of results, what is told."""

import argparse
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medimageparse_client.cli.connection import connect
from medimageparse_client.cli.console import describe, silence, warn
from medimageparse_client.cli.jobs import Plan
from medimageparse_client.cli.kinds import Encoder, Kind, Loaded
from medimageparse_client.cli.numbers import Numbers
from medimageparse_client.cli.places import Job, encoding_of
from medimageparse_client.cli.sources import Place, Source, Standard, load
from medimageparse_client.cli.voice import Voice
from medimageparse_client.client import Client
from medimageparse_client.errors import ServerUnavailable
from medimageparse_client.files import ending_of, write_file, write_files
from medimageparse_client.progress import Progress
from medimageparse_client.results.image_segmentation import ImageSegmentation
from medimageparse_client.results.label_table import ENDINGS, encode_label_table
from medimageparse_client.results.names import with_names
from medimageparse_client.results.report import Report, labels_of
from medimageparse_client.results.segmentation import Segmentation
from medimageparse_client.results.statistics import Row
from medimageparse_client.retry import Retry

HEALTH_TIMEOUT_S = 60.0  # for a canary, which on a CPU takes seconds


@dataclass(frozen=True)
class Outcome:
    """
    table: what was found
    rows: its numbers, where they are wanted
    failures: each result that could not be made or written, and why
    written: the others; folders end in /
    """

    table: str
    report: Report
    rows: list[Row]
    warnings: list[str]
    failures: list[tuple[Place, Exception]]
    written: list[str]


class Session:
    """What the requests of one run share."""

    def __init__(self, args: argparse.Namespace, plan: Plan) -> None:
        self.args, self.prompts, self.asked = args, plan.prompts, plan.asked
        self.kind: Kind = args.kind
        has_output = any(Standard.OUTPUT in job.results.values() for job in plan.jobs)
        self.voice = Voice(args, has_output)
        self.numbers = Numbers(args.statistics, self.kind.noun, args.skip_existing) if args.statistics else None
        self._has_answers = False
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

    def answer(self, job: Job, source: Loaded, progress: Progress | None = None) -> Outcome:
        """Segments one file and writes its results; one that cannot be written does not take the others with it."""
        result = self.retry.ask(lambda: self.ask(source, progress))
        failures: list[tuple[Place, Exception]] = []
        written: list[str] = []
        for place, write_it in self.writers(job, result):
            try:
                write_it()
            except Exception as error:  # whatever it is, it is counted and told
                failures.append((place, error))
            else:
                written.append(f"{place}/" if place in job.folders.values() else str(place))
        rows = result.statistics() if self.numbers else []
        return Outcome(self.kind.table(result), result.report, rows, list(result.facts.warnings), failures, written)

    def writers(self, job: Job, result: Segmentation | ImageSegmentation) -> Iterator[tuple[Place, Callable[[], None]]]:
        """Each place, and what writes it."""
        for option, place in job.results.items():
            ending = encoding_of(place, self.kind.results[option])
            yield place, partial(self.make, place, self.kind.encode[option], result, ending)
        for option, folder in job.folders.items():
            yield folder, partial(self.make_files, folder, option, result)
        if self.args.store:
            yield Standard.ARCHIVE, partial(self.store, job.source, result)

    def store(self, source: Source, result: Segmentation | ImageSegmentation) -> None:
        assert self.kind.store
        self.kind.store(self.args, result, str(source))

    def make(self, place: Place, encode: Encoder, result: Segmentation | ImageSegmentation, ending: str) -> None:
        put(place, encode(self.args, result, ending))

    def make_files(self, folder: Path, option: str, result: Segmentation | ImageSegmentation) -> None:
        write_files(folder, self.kind.folders[option].make(self.args, result))

    def ask(self, source: Loaded, progress: Progress | None) -> Segmentation | ImageSegmentation:
        with self.client(self.args.timeout) as client:
            return with_names(self.kind.segment(self.args, client, source, self.prompts, progress), self.asked)

    def is_done(self, job: Job) -> bool:
        """Whether all that is asked for one file is there; of standard output alone nothing stays."""
        leaves_something = job.results or job.folders or self.numbers is not None
        is_counted = self.numbers is None or job.source in self.numbers
        return bool(leaves_something) and is_counted and job.is_done(self.args, self.prompts)

    def tell(self, source: Source, outcome: Outcome, *, with_table: bool) -> None:
        self._has_answers = True
        if self.numbers:
            self.numbers.add(source, outcome.rows)
        if with_table:
            self.voice.table(outcome.table)
            self.voice.table(f"wrote: {', '.join(outcome.written)}\n" if outcome.written else "")
        self.voice.json(source, outcome.report)
        self.voice.times(source, outcome.report.get("milliseconds", {}))
        for warning in outcome.warnings:
            self.voice.note(f"{source}: warning: {warning}")
        for place, error in outcome.failures:
            self.tell_failure(place, error)

    def tell_lost(self, source: Source, error: Exception) -> None:
        """Of a file that gives nothing."""
        self.voice.json(source, {"error": describe(error)})
        self.tell_failure(source, error)

    def save(self) -> None:
        """The files of the whole run; a run without an answer leaves those of another as they are."""
        if not self._has_answers:
            return
        if self.numbers:
            self.numbers.save()
        if path := getattr(self.args, "label_table", None):
            write_file(path, encode_label_table(labels_of(self.prompts), ending_of(path, ENDINGS)))

    def tell_failure(self, name: Source, error: Exception) -> None:
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
