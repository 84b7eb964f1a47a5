"""What to do, as far as it can be known before anything is sent."""

import argparse
import os
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medimageparse_contract.models import MODEL_3D

from medimageparse_client.cli.console import WrongCommandLine
from medimageparse_client.cli.kinds import Kind
from medimageparse_client.cli.known import known_prompts
from medimageparse_client.cli.places import Job, below, encoding_of, folder_places, result_places, stem_of
from medimageparse_client.cli.sources import (
    Standard,
    find_sources,
    is_folder_of_many,
    list_of,
    split_arguments,
    unique,
)
from medimageparse_client.files import check_place, ending_of, identity, is_stream
from medimageparse_client.inputs import check_prompts


@dataclass(frozen=True)
class Plan:
    """
    prompts: none asks for all that the model knows in such an image
    asked: prompt -> the name that it was made of; the prompt itself where it was none
    is_single: whether one file is asked for by its name, and its results too
    problems: the folders that give nothing to do, and why
    notes: what a person should know beforehand
    """

    jobs: list[Job]
    prompts: tuple[str, ...]
    asked: dict[str, str]
    is_single: bool
    problems: list[Exception]
    notes: list[str]


def make_plan(args: argparse.Namespace) -> Plan:
    """Raises WrongCommandLine, or the error of a file that cannot be read or written."""
    kind: Kind = args.kind
    inputs, prompts = split_arguments(args, args.arguments)
    asked = known_prompts(args, "3d" if kind.model == MODEL_3D else "2d", prompts)
    prompts = list(asked) if args.preset or args.by_name else prompts
    if not (prompts or args.preset or args.image_type):
        raise WrongCommandLine(f"no prompt says what to look for; write it after the {kind.noun}, or use --prompt")
    checked = check_prompts(prompts) if prompts else ()
    problems: list[Exception] = []
    notes: list[str] = []
    sources = unique(find_sources(args, inputs, problems, notes))
    if not sources:
        raise problems[0]
    folders = [Path(name) for name in inputs if is_folder_of_many(name, args)]
    into_folders = len(inputs) > 1 or bool(folders)
    if into_folders and Standard.INPUT in sources:
        raise WrongCommandLine(f"- reads one {kind.noun} from standard input; give no other {kind.noun} beside it")
    check_wanted(args)
    jobs = []
    for source in sources:
        stem = below(source, folders if args.recursive else []) / stem_of(source, kind)
        places = result_places(args, stem, into_folders)
        jobs.append(Job(source, places, folder_places(args, stem, into_folders)))
    check_endings(args, jobs[0], checked)
    check_folders(args, folders)
    check_results(args, jobs)
    check_free(args, jobs, checked)
    return Plan(jobs, checked, asked, is_single=len(jobs) == 1 and not problems, problems=problems, notes=notes)


def check_wanted(args: argparse.Namespace) -> None:
    """Whether there is anything to give, and to one reader each."""
    options = (*args.kind.results, *args.kind.folders, "statistics")
    if not (args.json or args.store) and all(getattr(args, option) is None for option in options):
        raise WrongCommandLine("nothing would be written; give -o OUTPUT, or --json for the report alone")
    if args.json and any(getattr(args, option) == "-" for option in args.kind.results):
        raise WrongCommandLine("--json takes standard output; write the other results into files")
    for option, endings in args.kind.run_files.items():
        path: Path | None = getattr(args, option)
        if path and not ending_of(path, endings):
            raise WrongCommandLine(f"--{option.replace('_', '-')} names a {list_of(endings)} file")


def check_endings(args: argparse.Namespace, job: Job, prompts: Sequence[str]) -> None:
    kind: Kind = args.kind
    if "output" not in job.results:
        return
    ending = encoding_of(job.results["output"], kind.results["output"])
    limit = kind.max_prompts.get(ending, len(prompts))
    if len(prompts) > limit:
        raise WrongCommandLine(f"a {ending} holds {limit} labels at most, and there are {len(prompts)} prompts")


def check_folders(args: argparse.Namespace, folders: list[Path]) -> None:
    """A second run must not take the results of the first for volumes or images."""
    kind: Kind = args.kind
    searched = {identity(folder): folder for folder in folders}
    for option, endings in kind.results.items():
        place = getattr(args, option)
        if place not in (None, "-") and endings[0] in kind.suffixes and identity(Path(place)) in searched:
            raise WrongCommandLine(
                f"--{option} {place}: a second run would take the results for {kind.noun}s, or a result would "
                f"overwrite one; name a folder that is not searched, for example {Path(place) / 'results'}"
            )


def check_results(args: argparse.Namespace, jobs: list[Job]) -> None:
    """Tries each place, and that it is neither another's nor that of a file which is read."""
    named = (args.prompts_file, args.api_key_file, args.ca, args.certificate, args.certificate_key)
    read: dict[Hashable, str] = {identity(path): str(path) for path in named if path}
    for job in jobs:
        if isinstance(job.source, Path):
            read[identity(job.source)] = f"the {args.kind.noun} {job.source}"
    written: dict[Hashable, str] = {}
    key: Hashable
    for option in args.kind.run_files:
        if path := getattr(args, option):
            key = identity(path, folds_case=check_place(path))
            if key in read:
                raise WrongCommandLine(f"{path}: --{option} would overwrite {read[key]}; write it elsewhere")
            written[key] = f"--{option}"
    for job in jobs:
        for option, place in job.results.items():
            if isinstance(place, Standard):
                key = place
                if option != "report" and sys.stdout.isatty():
                    raise WrongCommandLine("standard output is a terminal; redirect it into a file or a pipe")
            elif place.resolve() == Path(os.devnull):
                continue
            else:
                key = identity(place, folds_case=check_place(place))
            what = f"the --{option} of {job.source}"
            if key in read:
                raise WrongCommandLine(f"{place}: {what} would overwrite {read[key]}; write it elsewhere")
            if key in written:
                raise WrongCommandLine(
                    f"{place}: {written[key]} and {what} would have the same name; give each kind of result a name or "
                    f"folder of its own, and segment {args.kind.noun}s with equal names one by one"
                )
            written[key] = what


def check_free(args: argparse.Namespace, jobs: list[Job], prompts: Sequence[str]) -> None:
    """Nothing that is there is written over, unless a person says so."""
    if args.force or args.skip_existing:
        return
    places = [getattr(args, option) for option in args.kind.run_files]
    for job in jobs:
        places += [*job.results.values(), *job.files(args, prompts)]
    there = [place for place in places if isinstance(place, Path) and place.exists() and not is_stream(place)]
    if there:
        more = f" and {len(there) - 1} more exist" if len(there) > 1 else " exists"
        raise WrongCommandLine(
            f"{there[0]}{more} already; --force writes over it, --skip-existing leaves out what is done"
        )
