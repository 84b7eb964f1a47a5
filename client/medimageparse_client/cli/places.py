"""Where the results of one volume or image lie."""

import argparse
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medimageparse_client.cli.console import WrongCommandLine
from medimageparse_client.cli.kinds import Kind
from medimageparse_client.cli.sources import Address, Place, Source, Standard, list_of
from medimageparse_client.files import ending_of, is_stream
from medimageparse_client.results.mask_files import mask_names
from medimageparse_client.results.report import labels_of


@dataclass(frozen=True)
class Job:
    """One volume or image, and where to write each of its kind's results whose option is given.

    folders: option -> the folder with a file for each prompt, for each of its kind's folders whose option is given
    """

    source: Source
    results: dict[str, Place]
    folders: dict[str, Path] = field(default_factory=dict)

    def is_done(self, args: argparse.Namespace, prompts: Sequence[str]) -> bool:
        """Whether all that is asked is there; of folders without prompts nobody knows."""
        results = all(isinstance(place, Path) and place.is_file() for place in self.results.values())
        return results and not (self.folders and not prompts) and all(map(Path.is_file, self.files(args, prompts)))

    def files(self, args: argparse.Namespace, prompts: Sequence[str]) -> Iterator[Path]:
        """Those in folders, as far as their names are known beforehand."""
        for option, folder in self.folders.items():
            ending = args.kind.folders[option].ending(args)
            yield from (folder / name for name in mask_names(labels_of(prompts), ending).values())


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


def folder_places(args: argparse.Namespace, stem: Path, into_folders: bool) -> dict[str, Path]:
    """Option -> the folder for one volume's or image's files; of several each has its own."""
    places = {}
    for option in args.kind.folders:
        place: str | None = getattr(args, option)
        if place == "-":
            raise WrongCommandLine(f"--{option.replace('_', '-')} names a folder")
        if place is not None:
            places[option] = Path(place) / stem if into_folders else Path(place)
    return places


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
