"""The cases of medimageparse cohort, and what its options ask of each."""

import argparse
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from medimageparse_contract.options import Intensity, Orientation

from medimageparse_client.cli.console import WrongCommandLine
from medimageparse_client.cli.known import known_prompts
from medimageparse_client.cli.places import below, stem_of
from medimageparse_client.cli.segment import VOLUMES
from medimageparse_client.cli.sources import in_unicode, list_of, search
from medimageparse_client.cli.text_files import read_prompts, read_text
from medimageparse_client.cohort.case import Case, Wish, WrongCases, check_id, check_unique
from medimageparse_client.cohort.manifest import DELIMITERS, read_manifest
from medimageparse_client.errors import InvalidRequest
from medimageparse_client.files import identity
from medimageparse_client.inputs import check_sought
from medimageparse_client.results.writers import MAY_OVERLAP, OF_SERIES, SEG


def find_cases(args: argparse.Namespace) -> tuple[list[Case], list[str]]:
    """All cases of the cohort, and what a person should know; WrongCases without a file's name."""
    delimiter = DELIMITERS.get(args.source.suffix.lower())
    wish_of = wishes(args)
    if delimiter and not args.source.is_dir():
        text = read_text(args.source)
        cases, unread = read_manifest(
            text, delimiter, args.source.absolute().parent, lambda path: stem_of(path, VOLUMES), wish_of
        )
        return cases, [f"columns of the manifest that are not read: {', '.join(unread)}"] if unread else []
    if not args.source.is_dir():
        raise WrongCases("the first argument is a .csv or .tsv file with the column file, or a folder of volumes")
    wish = wish_of({})
    if VOLUMES.is_one(args.source, not args.recursive):
        found: tuple[list[Path], list[Path], list[Path]] = ([args.source.absolute()], [], [])
    else:
        found = search(args.source.absolute(), args, {identity(args.output)})
    paths, others, folders = found
    if not paths:
        raise WrongCases("the folder holds no volume; --recursive searches the folders in it")
    root = [args.source.absolute()]
    cases = [Case(check_id((below(path, root) / stem_of(path, VOLUMES)).as_posix()), path, wish) for path in paths]
    check_unique((case.id, "a file of the folder") for case in cases)
    notes = [f"{len(others)} files are no volumes and left out"] if others else []
    return cases, notes + ([f"{len(folders)} folders are left out; --recursive searches them"] if folders else [])


def wishes(args: argparse.Namespace) -> Callable[[dict[str, str]], Wish]:
    """What makes the wish of a row: its cells go before the options."""
    prompts = [*args.prompt, *(read_prompts(args.prompts_file) if args.prompts_file else [])]
    default = tuple(in_unicode(prompt) for prompt in prompts)
    if default and args.preset:
        raise WrongCommandLine("--preset says what to look for; leave out --prompt and --prompts-file, or --preset")
    ending = f".{args.format}"
    if args.overlap and (args.seg_type != "binary" or ending not in MAY_OVERLAP):
        raise WrongCommandLine(f"--overlap is for --format {list_of(tuple(kind[1:] for kind in MAY_OVERLAP))}")
    if args.seg_type != "binary" and ending != SEG:
        raise WrongCommandLine(f"--seg-type is for --format {SEG[1:]}; give that, or leave it out")
    if args.resample_tilt and ending in OF_SERIES:
        raise WrongCommandLine("--resample-tilt makes voxels that are not those of the slices; take --format nii.gz")

    @lru_cache(maxsize=100_000)  # rows are mostly alike, and equal wishes are one
    def wish_of(cells: tuple[tuple[str, str], ...]) -> Wish:
        row = dict(cells)
        named = tuple(text.strip() for text in row["prompts"].split("&")) if "prompts" in row else ()
        preset = row.get("preset") or (None if named else args.preset)
        if named and preset:
            raise WrongCases("it has prompts and a preset; leave one of them empty")
        sought = named or (() if preset else default)
        if not (sought or preset):
            raise WrongCases("nothing says what to look for; fill in prompts or preset, or give --prompt or --preset")
        asked = sentences(args, sought, preset)
        prompts = tuple(asked) if args.by_name and not preset else sought
        try:
            checked = check_sought(prompts or None, preset)
        except InvalidRequest as error:
            raise WrongCases(str(error)) from error
        return Wish(
            checked,
            preset,
            tuple(asked.items()) if preset or args.by_name else (),
            one_of(row, "intensity", get_args(Intensity), args.intensity),
            one_of(row, "orientation", get_args(Orientation), args.orientation),
            axis_of(one_of(row, "slice_axis", ("auto", "0", "1", "2"), args.slice_axis)),
            number_of(row, "time_point", args.time_point),
            row.get("series", args.series),
            args.allow_gaps,
            args.resample_tilt,
            ending,
            args.seg_type,
            args.overlap,
        )

    return lambda cells: wish_of(tuple(sorted(cells.items())))


def sentences(args: argparse.Namespace, prompts: tuple[str, ...], preset: str | None) -> dict[str, str]:
    """Sentence -> what it was made of; WrongCases does not repeat a prompt, for a manifest's are the patient's."""
    options = argparse.Namespace(preset=preset, by_name=args.by_name and not preset, modality=args.modality)
    if preset or not args.by_name:
        options.modality = None
    try:
        return known_prompts(options, "3d", list(prompts))
    except WrongCommandLine as error:
        what = "the preset is not known" if preset else "a prompt is not one sentence of the catalogue"
        raise WrongCases(f"{what}; medimageparse structures lists what there is") from error


def one_of(row: dict[str, str], name: str, choices: tuple[str, ...], default: Any) -> Any:
    if name not in row:
        return default
    if row[name] not in choices:
        raise WrongCases(f"its {name} is none of {', '.join(choices)}")
    return row[name]


def axis_of(text: str) -> Any:
    return text if text == "auto" else int(text)


def number_of(row: dict[str, str], name: str, default: int | None) -> int | None:
    if name not in row:
        return default
    if not (row[name].isascii() and row[name].isdigit()):
        raise WrongCases(f"its {name} is a whole number from 0")
    return int(row[name])
