"""Asks for the cases that are to do, a bounded number at a time, and keeps each result as it comes."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Literal

from medimageparse_client.client import Client
from medimageparse_client.cohort.case import Case
from medimageparse_client.cohort.inputs import hash_of, stamp_of
from medimageparse_client.cohort.records import Records
from medimageparse_client.cohort.servers import Servers
from medimageparse_client.errors import (
    InvalidRequest,
    InvalidVolume,
    MedImageParseError,
    RequestTimeout,
    ServerError,
)
from medimageparse_client.results.names import with_names
from medimageparse_client.results.segmentation import Segmentation

# done now, done before; failed now, failed before; not asked, because the run ended
State = Literal["done", "there", "failed", "failed before", "left"]
# what failures are counted as, and logs say of them; the first that fits
KINDS: tuple[tuple[type[Exception], str], ...] = (
    (InvalidVolume, "unreadable"),
    (InvalidRequest, "refused"),
    (RequestTimeout, "no answer in time"),
    (ServerError, "the server failed"),
    (MedImageParseError, "odd answer"),
    (OSError, "unreadable"),
    (MemoryError, "too large for this machine"),
)
CHANGED = "the volume changed while it was segmented; ask again when nobody writes there"


class Run:
    """
    connect: gives a client for a url; it asks once
    workers: cases at a time at most; each holds one volume in memory
    code_of: the exit code of a failure; `codes` has those of this run
    by_content: reads volumes and results whole to see whether they changed
    retry_failed: asks again for what failed before
    """

    def __init__(
        self,
        records: Records,
        servers: Servers,
        connect: Callable[[str], Client],
        *,
        workers: int,
        code_of: Callable[[Exception], int],
        by_content: bool = False,
        retry_failed: bool = False,
    ) -> None:
        self.records, self.servers, self.connect, self.workers = records, servers, connect, workers
        self.code_of = code_of
        self.by_content, self.retry_failed = by_content, retry_failed
        self.codes: set[int] = set()  # of this run's failures
        self._clients: set[Client] = set()

    def over(self, cases: Sequence[Case]) -> Iterator[State]:
        """How each case ended, as they end. Raises the OSError of a result that cannot be written."""
        to_do, under_way = iter(cases), set[Future[State]]()
        executor = ThreadPoolExecutor(self.workers)
        try:
            while True:
                free = 0 if self.servers.final else self.workers - len(under_way)
                under_way |= {executor.submit(self.of_case, case) for case in islice(to_do, free)}
                if not under_way:
                    return
                finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        except BaseException:  # Ctrl-C, or a disk that is full
            self.stop()
            raise
        finally:
            executor.shutdown(cancel_futures=True)

    def stop(self) -> None:
        """Nothing more is asked; over gRPC the server stops its work too."""
        self.servers.stop()
        for client in list(self._clients):
            if client.protocol == "grpc":
                client.close()

    def of_case(self, case: Case) -> State:
        if self.records.is_done(case, by_content=self.by_content):
            return "there"
        if not self.retry_failed and self.records.has_failed(case):
            return "failed before"
        stamp = stamp_of(case.source)
        try:
            digest = hash_of(case.source)
            result, seconds = self.servers.ask(lambda url: self.ask(url, case))
            data = result.to_bytes(case.wish.ending, seg_type=case.wish.seg_type)
            if stamp != stamp_of(case.source):
                raise InvalidVolume(CHANGED)
        except (MedImageParseError, OSError, MemoryError) as error:
            if self.servers.final:
                return "left"
            self.codes.add(self.code_of(error))
            kind = next(kind for cause, kind in KINDS if isinstance(error, cause))
            self.records.keep_failure(case, stamp, kind, reason_of(error))
            return "failed"
        self.records.keep(case, stamp, digest, seconds, data, result.report)
        return "done"

    def ask(self, url: str, case: Case) -> tuple[Segmentation, float]:
        """The result, and how many seconds it took."""
        begun_s = time.monotonic()
        with self.client(url) as client:
            result = with_names(case.wish.ask(client, case.source), dict(case.wish.asked))
        assert isinstance(result, Segmentation)
        return result, round(time.monotonic() - begun_s, 3)

    @contextmanager
    def client(self, url: str) -> Iterator[Client]:
        with self.connect(url) as client:
            self._clients.add(client)
            try:
                yield client
            finally:
                self._clients.discard(client)


def reason_of(error: Exception) -> str:
    """For the caller's own table."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) or type(error).__name__
