"""Asks for every case, scores it and writes its record; a run that was stopped goes on where it was."""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medimageparse_contract.hashing import sha256

from medimageparse_client.errors import MedImageParseError, ServerUnavailable
from medimageparse_client.evaluate.answers import Answers, save_image, save_volume
from medimageparse_client.evaluate.cases import Case, CaseError, ImageCase, Sentences, VolumeCase
from medimageparse_client.evaluate.records import Journal, Kind, Record, digest
from medimageparse_client.evaluate.scoring import image_metrics, image_rows, negative_rows, volume_metrics


@dataclass(frozen=True)
class Settings:
    """What an answer or a score depends on; a run is continued with the same only.

    sentences: which of several sentences is asked
    n_negatives: prompts of other data sets that are asked besides, in a request of their own
    surface: whether NSD is computed
    """

    layout: str
    sentences: Sentences = Sentences()
    n_negatives: int = 0
    surface: bool = True

    def as_json(self, answers: Answers) -> dict[str, Any]:
        return {
            "layout": self.layout,
            "prompt": self.sentences.choice,
            "seed": self.sentences.seed,
            "negatives": self.n_negatives,
            "surface": self.surface,
            "networks": dict(answers.networks),
        }


class Run:
    """One run over cases.

    save: folder for the answers, or None
    workers: cases that are asked and scored at once; each holds one case in memory
    tell: is called with every new record
    """

    def __init__(
        self,
        cases: Sequence[Case],
        answers: Answers,
        settings: Settings,
        *,
        save: Path | None = None,
        workers: int = 2,
        tell: Callable[[Record], None] = lambda record: None,
    ) -> None:
        self.cases, self.answers, self.settings = cases, answers, settings
        self.save, self.workers, self.tell = save, workers, tell
        self.prompts_of_sets = prompts_of_sets(cases) if settings.n_negatives else {}

    def into(self, journal: Journal) -> list[Record]:
        """The records of all cases, by name; new ones are written as they come. Ctrl-C keeps what is done.

        Raises ServerUnavailable when the server stays away.
        """
        to_do = iter(self.cases)
        executor = ThreadPoolExecutor(self.workers)
        under_way: set[Future[Record | None]] = set()
        try:
            while True:
                # no more than a few wait, so that a stopped run has no long queue to empty
                under_way |= {
                    executor.submit(self.of_case, case, journal) for case in take(to_do, 2 * self.workers, under_way)
                }
                if not under_way:
                    break
                finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                # what was answered is kept before what ended the run is raised
                for future in sorted(finished, key=lambda future: future.exception() is not None):
                    self.keep(future.result(), journal)
        finally:
            executor.shutdown(cancel_futures=True)
            for future in under_way:
                if not future.cancelled() and future.exception() is None:
                    self.keep(future.result(), journal)
        names = {case.name for case in self.cases}
        return sorted((r for r in journal.records.values() if r.name in names), key=lambda record: record.name)

    def keep(self, record: Record | None, journal: Journal) -> None:
        if record is not None:
            journal.add(record)
            self.tell(record)

    def of_case(self, case: Case, journal: Journal) -> Record | None:
        """The record of a case; None if it is done. What is wrong with one case does not end the run."""
        hashes = hashes_of(case)
        if journal.is_done(case.name, *hashes):
            return None
        try:
            return self.answered(case, hashes)
        except ServerUnavailable:
            raise
        except (CaseError, MedImageParseError) as error:
            return replace(blank(case, hashes), state="failed", error=str(error))
        except (OSError, MemoryError) as error:
            return replace(blank(case, hashes), state="failed", error=f"a file cannot be read: {type(error).__name__}")

    def answered(self, case: Case, hashes: tuple[str, str]) -> Record:
        if isinstance(case, ImageCase):
            rows, answer = image_rows(case, self.answers, self.settings.sentences)
            if self.save is not None:
                save_image(self.save, case, answer)
            return replace(blank(case, hashes), seconds=answer.seconds, metrics=image_metrics(rows), rows=rows)
        if case.truth is None:
            raise CaseError("there is no ground truth of this name")
        question = case.load(self.settings.sentences)
        given = self.answers.of_volume(case, question, question.prompts)
        if self.save is not None:
            save_volume(self.save, case, question, given)
        metrics, labels = volume_metrics(question, given, surface=self.settings.surface)
        negatives = self.negatives(case, tuple(question.prompts.values()))
        labels += tuple(negative_rows(self.answers, case, question, negatives))
        kind: Kind = "instance" if question.is_instance else "semantic"
        return replace(blank(case, hashes), kind=kind, seconds=given.seconds, metrics=metrics, rows=labels)

    def negatives(self, case: VolumeCase, asked: Sequence[str]) -> list[str]:
        """Prompts of other data sets of the modality; which ones depends on the seed and the case alone."""
        others = {
            prompt
            for (modality, data_set), prompts in self.prompts_of_sets.items()
            if modality == case.modality and data_set != case.data_set
            for prompt in prompts
        }
        candidates = sorted(others - set(asked))
        rng = random.Random(f"{self.settings.sentences.seed} {case.name}")
        return rng.sample(candidates, min(self.settings.n_negatives, len(candidates)))


def take(cases: Iterator[Case], n: int, under_way: set[Future[Record | None]]) -> Iterator[Case]:
    """As many further cases as there may be under way."""
    for _ in range(n - len(under_way)):
        case = next(cases, None)
        if case is None:
            return
        yield case


def prompts_of_sets(cases: Sequence[Case]) -> dict[tuple[str, str], set[str]]:
    """(modality, data set) -> first sentences of all its cases; a case whose prompts cannot be read has none."""
    prompts: dict[tuple[str, str], set[str]] = {}
    for case in cases:
        if isinstance(case, VolumeCase):
            try:
                sentences = case.prompts().sentences.values()
            except CaseError:  # the case itself will say so
                continue
            prompts.setdefault((case.modality, case.data_set), set()).update(several[0] for several in sentences)
    return prompts


def blank(case: Case, hashes: tuple[str, str]) -> Record:
    """A record without results."""
    kind: Kind = "image" if isinstance(case, ImageCase) else "semantic"
    modality = case.annotations[0].modality if isinstance(case, ImageCase) else case.modality
    image_sha256, truth_sha256 = hashes
    return Record(
        case.name, kind, modality, case.data_set, "done", image_sha256=image_sha256, truth_sha256=truth_sha256
    )


def hashes_of(case: Case) -> tuple[str, str]:
    """SHA-256 of the image and of the truth, or one hash of all masks; "" for a file that is not there."""
    if isinstance(case, VolumeCase):
        return hash_or_none(case.image), hash_or_none(case.truth)
    return hash_or_none(case.image), digest([hash_or_none(annotation.mask) for annotation in case.annotations])


def hash_or_none(path: Path | None) -> str:
    try:
        return sha256(path) if path is not None else ""
    except OSError:
        return ""
