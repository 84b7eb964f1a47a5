"""What `segment` and `segment-image` do: requests for one file or many, results written, sums told."""

import argparse
from concurrent.futures import ThreadPoolExecutor, as_completed

from tqdm import tqdm

from medimageparse_client.cli.console import DONE, bar_of_parts, describe, exit_code, warn
from medimageparse_client.cli.jobs import Plan, make_plan
from medimageparse_client.cli.places import Job
from medimageparse_client.cli.session import Session
from medimageparse_client.cli.sources import load
from medimageparse_client.cli.tally import Tally


def segment(args: argparse.Namespace) -> int:
    plan = make_plan(args)
    session = Session(args, plan)
    for note in plan.notes:
        session.voice.note(note)
    for problem in plan.problems:
        warn(describe(problem))
    to_do = [job for job in plan.jobs if not (args.skip_existing and session.is_done(job))]
    try:
        return segment_one(session, to_do[0]) if plan.is_single and to_do else segment_many(session, plan, to_do)
    finally:
        session.save()


def segment_one(session: Session, job: Job) -> int:
    try:
        source = load(job.source, session.kind)
    except OSError as error:
        session.tell_lost(job.source, error)
        return exit_code(error)
    session.check_server()
    try:
        part = "" if session.args.quiet else session.kind.part(session.args)
        with bar_of_parts(part, session.kind.count(session.args, source)) as progress:
            outcome = session.answer(job, source, progress)
    except Exception as error:  # as for several: told with the file's name
        session.tell_lost(job.source, error)
        return exit_code(error)
    session.tell(job.source, outcome, with_table=True)
    return exit_code(outcome.failures[0][1]) if outcome.failures else DONE


def segment_many(session: Session, plan: Plan, jobs: list[Job]) -> int:
    """Keeps a few requests in flight; a file that fails does not stop the others, a server that stays away does."""
    if jobs:
        session.check_server()
    tally = Tally(session, plan)
    executor = ThreadPoolExecutor(session.args.in_flight)
    job_of = {executor.submit(session.run, job): job for job in jobs}
    is_silent = True if session.args.quiet else None  # None: without a terminal
    try:
        for future in tqdm(as_completed(job_of), total=len(jobs), unit=session.kind.noun, disable=is_silent):
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
    return tally.tell(n_skipped=len(plan.jobs) - len(jobs))
