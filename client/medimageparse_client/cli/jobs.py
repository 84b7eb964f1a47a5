"""What to do, as far as it can be known before anything is sent."""

import argparse
import json
import os
import re
import sys
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medimageparse_contract.models import MODEL_3D

from medimageparse_client.cli.console import WrongCommandLine
from medimageparse_client.cli.kinds import Kind
from medimageparse_client.cli.known import known_prompts
from medimageparse_client.cli.sources import (
    Address,
    Place,
    Source,
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
class Job:
    """One volume or image, and where to write each of its kind's results whose option is given.

    masks: the folder for a mask of each prompt
    """

    source: Source
    results: dict[str, Place]
    masks: Path | None = None

    def is_done(self, mask_names: Collection[str]) -> bool:
        has_masks = self.masks is None or all((self.masks / name).is_file() for name in mask_names or [""])
        return has_masks and all(isinstance(place, Path) and place.is_file() for place in self.results.values())


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
    if not prompts and not args.image_type:
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
        jobs.append(Job(source, places, masks_place(args, stem, into_folders)))
    check_endings(args, jobs[0], checked)
    check_folders(args, folders)
    check_results(args, jobs)
    return Plan(jobs, checked, asked, is_single=len(jobs) == 1 and not problems, problems=problems, notes=notes)


def below(source: Source, folders: list[Path]) -> Path:
    """The folder in a searched one in which a file lies."""
    parents = (
        [source.parent.relative_to(folder) for folder in folders if folder in source.parents]
        if isinstance(source, Path)
        else []
    )
    return parents[0] if parents else Path()


def result_places(args: argparse.Namespace, stem: Path, into_folders: bool) -> dict[str, Place]:
    """Option -> where to write for one volume or image; in a folder, what is called `stem`."""
    kind: Kind = args.kind
    places: dict[str, Place] = {}
    for option, endings in kind.results.items():
        place: str | None = getattr(args, option)
        if place is None:
            continue
        if place == "-":
            if into_folders:
                raise WrongCommandLine(f"--{option} - writes one result; for several {kind.noun}s name a folder")
            places[option] = Standard.OUTPUT
            continue
        path = Path(place)
        names_file = bool(ending_of(path, endings))
        if into_folders and names_file:
            raise WrongCommandLine(f"for several {kind.noun}s --{option} names a folder")
        if into_folders or path.is_dir() or place.endswith(os.sep):
            places[option] = path / f"{stem}{endings[0]}"
        elif names_file or is_stream(path):
            places[option] = path
        else:
            raise WrongCommandLine(f"--{option} names a {list_of(endings)} file, or a folder/")
    output = places.get("output")
    if args.report is None and isinstance(output, Path) and not is_stream(output):
        places["report"] = report_beside(output, kind)
    return places


def report_beside(output: Path, kind: Kind) -> Path:
    """Where the report lies that says what the labels mean; no other file is overwritten unasked."""
    ending = ending_of(output, kind.results["output"])
    path = output.with_name(f"{output.name[: len(output.name) - len(ending)]}.json")
    if path.is_file() and not is_report(path):
        raise WrongCommandLine(
            f"{path}: the report beside {output.name} would overwrite this file, which is none; name one with --report"
        )
    return path


def is_report(path: Path) -> bool:
    try:
        told = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(told, dict) and "prompts" in told


def masks_place(args: argparse.Namespace, stem: Path, into_folders: bool) -> Path | None:
    """The folder for one volume's or image's masks; of several each has its own."""
    if args.masks_dir is None:
        return None
    if args.masks_dir == "-":
        raise WrongCommandLine("--masks-dir names a folder")
    folder = Path(args.masks_dir)
    return folder / stem if into_folders else folder


def check_wanted(args: argparse.Namespace) -> None:
    """Whether there is anything to give, and to one reader each."""
    options = (*args.kind.results, "masks_dir", "statistics")
    if not args.json and all(getattr(args, option) is None for option in options):
        raise WrongCommandLine("nothing would be written; give -o OUTPUT, or --json for the report alone")
    if args.json and any(getattr(args, option) == "-" for option in args.kind.results):
        raise WrongCommandLine("--json takes standard output; write the other results into files")
    for option, endings in args.kind.run_files.items():
        path: Path | None = getattr(args, option)
        if path and not ending_of(path, endings):
            raise WrongCommandLine(f"--{option.replace('_', '-')} names a {list_of(endings)} file")


def stem_of(source: Source, kind: Kind) -> str:
    """The name without the ending that such files have; all of another name, for IM.1 and IM.2 are two."""
    if isinstance(source, Standard):
        return "stdin"
    if isinstance(source, Address):
        return "series"  # its UID is the patient's
    return re.sub(rf"({'|'.join(map(re.escape, kind.suffixes))})$", "", source.name, flags=re.IGNORECASE)


def encoding_of(place: Place, endings: tuple[str, ...]) -> str:
    """How a result is encoded: as its name ends, and as those in a folder where it has none."""
    return (isinstance(place, Path) and ending_of(place, endings)) or endings[0]


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
