"""The files that a command line names, one by one or by their folder."""

import argparse
import errno
import os
import sys
from collections.abc import Hashable, Iterator
from enum import Enum
from pathlib import Path

from medimageparse_client.cli.console import WrongCommandLine
from medimageparse_client.cli.kinds import Kind, Loaded
from medimageparse_client.cli.text_files import read_prompts
from medimageparse_client.files import identity, is_stream
from medimageparse_client.formats.dicomweb_address import is_address
from medimageparse_client.formats.nifti import MAX_BYTES


class Standard(Enum):
    """What `-` stands for, and what --store does."""

    INPUT = "standard input"
    OUTPUT = "standard output"
    ARCHIVE = "the archive of the series"

    def __str__(self) -> str:
        return self.value


class Address(str):
    """Of a DICOMweb series."""


Source = Path | Standard | Address
Place = Path | Standard


def split_arguments(args: argparse.Namespace, arguments: list[str]) -> tuple[list[str], list[str]]:
    """The volumes or images, and the prompts."""
    kind: Kind = args.kind
    prompts = [*args.prompt, *(read_prompts(args.prompts_file) if args.prompts_file else [])]
    if "" in arguments:
        raise WrongCommandLine(f"an argument is empty; give the name of a {kind.noun} and what to look for in it")
    if prompts and args.preset:
        raise WrongCommandLine("--preset says what to look for; leave out --prompt and --prompts-file, or --preset")
    if prompts or args.preset:
        inputs = arguments
        if unlike := [name for name in arguments if not (is_input(name, kind) or os.path.exists(name))]:
            raise WrongCommandLine(
                "with --prompt, --prompts-file or --preset all arguments are folders or "
                f"{list_of(kind.suffixes)} files, and {unlike[0]!r} is neither"
            )
    elif args.image_type and all(is_input(name, kind) for name in arguments):
        inputs = arguments
    else:
        inputs, prompts = arguments[:1], arguments[1:]
        if alike := [prompt for prompt in prompts if is_input(prompt, kind) or is_file_name(prompt)]:
            raise WrongCommandLine(
                f"the prompt {alike[0]!r} looks like a file; for several {kind.noun}s give each prompt with --prompt, "
                "and for prompts from a file name it with --prompts-file"
            )
    inputs = [os.path.expanduser(name) if name.startswith("~/") else name for name in inputs]
    return inputs, [in_unicode(prompt) for prompt in prompts]


def in_unicode(prompt: str) -> str:
    """A prompt in UTF-8, also where the locale, as LC_ALL=C, made Python take its letters for unknown bytes."""
    try:
        return os.fsencode(prompt).decode() if not prompt.isprintable() else prompt
    except UnicodeError:
        return prompt


def is_input(name: str, kind: Kind) -> bool:
    is_named = name == "-" or is_address(name) or name.lower().endswith(kind.suffixes)
    return is_named or (os.path.isfile(name) and kind.recognizes(Path(name)))


def is_file_name(prompt: str) -> bool:
    """A prompt may be called like a file or folder without an ending; nobody looks for "organs.txt" in a patient."""
    return bool(Path(prompt).suffix) and os.path.isfile(prompt)


def list_of(suffixes: tuple[str, ...]) -> str:
    """The endings as words."""
    return " or ".join(filter(None, (", ".join(suffixes[:-1]), suffixes[-1])))


def find_sources(
    args: argparse.Namespace, inputs: list[str], problems: list[Exception], notes: list[str]
) -> Iterator[Source]:
    """The files, and in their place the volumes or images of each folder, by name."""
    kind: Kind = args.kind
    for name in inputs:
        path = Path(name)
        if is_address(name):
            yield Address(name)
        elif name in ("-", "/dev/stdin"):
            yield Standard.INPUT
        elif not is_folder_of_many(name, args):
            yield path
        else:
            try:
                found, others, folders = search(path, args, result_folders(args))
            except OSError as error:
                problems.append(error)
                continue
            yield from found
            if not found:
                unsearched = "" if args.recursive else "; folders in it are not searched"
                problems.append(WrongCommandLine(f"{name}: the folder holds no {kind.noun}{unsearched}"))
                continue
            if others:
                notes.append(f"{first_of(others)}: no {kind.noun}, left out")
            if folders:
                notes.append(f"{first_of(folders)}: folders are left out; --recursive searches them")


def is_folder_of_many(name: str, args: argparse.Namespace) -> bool:
    """Of a path that is not there or too long, False; --recursive tells the folders below apart."""
    try:
        return os.path.isdir(name) and not args.kind.is_one(Path(name), not args.recursive)
    except OSError:
        return True  # searching it tells what is wrong


def first_of(paths: list[Path]) -> str:
    return f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}"


def result_folders(args: argparse.Namespace) -> set[Hashable]:
    """What is written there is not searched."""
    places = [getattr(args, option) for option in (*args.kind.results, *args.kind.folders)]
    return {identity(Path(place)) for place in places if place and place != "-"}


def search(
    folder: Path, args: argparse.Namespace, left_alone: set[Hashable]
) -> tuple[list[Path], list[Path], list[Path]]:
    """The volumes or images in a folder, the other files, and the folders that are not searched.

    Hidden files, as macOS puts beside each file, are none of them.

    A file that only its name or only its content makes one is taken: if it is none, that is told for this file. But
    DICOM files of many kinds have one ending, so that of those the content decides.
    """
    kind: Kind = args.kind
    found: list[Path] = []
    others: list[Path] = []
    folders: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or is_stream(path):
            continue
        if path.is_dir():
            if identity(path) in left_alone:
                continue
            if not args.recursive or path.is_symlink():  # a link may lead back
                folders.append(path)
                continue
            if kind.is_one(path, False):
                found.append(path)
                continue
            for paths, more in zip((found, others, folders), search(path, args, left_alone), strict=True):
                paths.extend(more)
            continue
        is_readable = path.is_symlink() or os.access(path, os.R_OK)
        is_named = path.name.lower().endswith(kind.suffixes) and not (is_readable and kind.rejects(path))
        is_wanted = is_named or not is_readable or kind.recognizes(path)
        (found if is_wanted else others).append(path)
    return found, others, folders


def unique(sources: Iterator[Source]) -> list[Source]:
    """Each name once: `scans/* scans/a.nii` names one file twice."""
    return list(
        {os.path.abspath(source) if isinstance(source, Path) else source: source for source in sources}.values()
    )


def load(source: Source, kind: Kind) -> Loaded:
    """A file that can be read, or the bytes of what can be read only once; OSError names it."""
    if isinstance(source, Address):
        return source
    if isinstance(source, Path) and not is_stream(source):
        if not os.access(source, os.R_OK):
            source.open("rb").close()  # raises, and says why
        return source
    if isinstance(source, Path):
        with source.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    elif sys.stdin.isatty():
        raise WrongCommandLine(f"standard input is a terminal; pipe a {kind.noun} into it")
    else:
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if not data:
        raise OSError(errno.ENODATA, "nothing came from it", str(source))
    return data
