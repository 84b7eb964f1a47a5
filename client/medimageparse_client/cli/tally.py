"""How the files of a run ended."""

from concurrent.futures import CancelledError, Future

from medimageparse_client.cli.console import DONE, SOME_FAILED, describe, exit_code, sentence_of, warn
from medimageparse_client.cli.jobs import Plan
from medimageparse_client.cli.places import Job
from medimageparse_client.cli.session import Outcome, Session
from medimageparse_client.errors import MedImageParseError


class Tally:
    def __init__(self, session: Session, plan: Plan) -> None:
        self.session, self.plan = session, plan
        self.n_done = self.n_left = 0
        self.codes = [exit_code(problem) for problem in plan.problems]  # of each failure
        self.failed: dict[str, list[str]] = {}  # what went wrong -> the files

    def add(self, job: Job, future: Future[Outcome]) -> None:
        try:
            outcome = future.result()
        except CancelledError:
            self.n_left += 1
        except Exception as error:  # whatever it is, it is counted and told, and the others go on
            if error is self.session.retry.final:
                self.n_left += 1
            else:
                self.session.tell_lost(job.source, error)
                self.count(job, error)
        else:
            self.session.tell(job.source, outcome, with_table=self.session.voice.is_verbose)
            if outcome.failures:
                self.count(job, outcome.failures[0][1])
            self.n_done += not outcome.failures

    def count(self, job: Job, error: Exception) -> None:
        self.codes.append(exit_code(error))
        sentence = error.sentence if isinstance(error, MedImageParseError) else sentence_of(error)
        self.failed.setdefault(sentence, []).append(str(job.source))

    def tell(self, n_skipped: int) -> int:
        """The sums, and again what failed, which may have scrolled away; gives the exit code."""
        nouns, final = f"{self.session.kind.noun}s", self.session.retry.final
        skipped = f", {n_skipped} skipped, for their results are there" if n_skipped else ""
        self.session.voice.sums(f"{self.n_done} of {len(self.plan.jobs)} {nouns} segmented{skipped}\n")
        if sum(map(len, self.failed.values())) > 1:
            for sentence, names in self.failed.items():
                warn(f"failed: {', '.join(names)}: {sentence}")
        if final:
            left = f"{self.n_left} {nouns} are left, and the same command with --skip-existing goes on with them"
            warn(f"{describe(final)}; {left}")
            return exit_code(final)
        if not self.codes:
            return DONE
        is_one_fault = not (self.n_done or n_skipped) and len({*self.codes}) == 1
        return self.codes[0] if is_one_fault else SOME_FAILED
