"""What the two commands that segment have different: files, results, requests and tables."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from medimageparse_client.client import Client
from medimageparse_client.files import picture_bytes
from medimageparse_client.progress import Progress
from medimageparse_client.results.image_segmentation import ImageSegmentation
from medimageparse_client.results.segmentation import Segmentation

Loaded: TypeAlias = Path | bytes | str  # a file, its bytes, or the address of a series
CUT = "  (cut to 77 tokens)"
# from the command line and a result the bytes of a file that ends as the last argument says
Encoder = Callable[[argparse.Namespace, Any, str], bytes]


@dataclass(frozen=True)
class Folder:
    """
    ending: of its files, by the command line
    make: name of each file -> its bytes
    """

    ending: Callable[[argparse.Namespace], str]
    make: Callable[[argparse.Namespace, Any], dict[str, bytes]]


@dataclass(frozen=True)
class Kind:
    """What a command segments.

    suffixes: that the files it takes usually have
    recognizes: whether a file holds such a thing, whatever its name
    rejects: whether a file that is named so holds for certain another thing
    is_one: whether a folder is one of them and not a folder of many, for what lies in it, or also for what lies below
    results: option -> the endings of the file it names; the first is given to results in a folder
    run_files: option -> the endings of the one file that it names for all of a run
    encode: option -> what makes the bytes of that file
    max_prompts: ending -> how many a label map that ends so can hold
    segment: sends one file, or its bytes
    folders: option -> what makes the files of the folder that it names, one for each prompt
    part: what it is done by, slice or tile, and tells how far it is; "" where it is done in one step
    table: what was found, one line a prompt, and what was used
    store: puts a result into the archive that its volume came from, whose address is given
    count: how many parts there are, where one knows before it is sent
    """

    noun: str
    model: str
    suffixes: tuple[str, ...]
    recognizes: Callable[[Path], bool]
    rejects: Callable[[Path], bool]
    is_one: Callable[[Path, bool], bool]
    results: dict[str, tuple[str, ...]]
    run_files: dict[str, tuple[str, ...]]
    encode: dict[str, Encoder]
    max_prompts: dict[str, int]
    segment: Callable[
        [argparse.Namespace, Client, Loaded, tuple[str, ...], Progress | None],
        Segmentation | ImageSegmentation,
    ]
    folders: dict[str, Folder]
    part: Callable[[argparse.Namespace], str]
    table: Callable[[Any], str]
    store: Callable[[argparse.Namespace, Any, str], None] | None = None
    count: Callable[[argparse.Namespace, Loaded], int | None] = lambda args, source: None


def masks_folder(ending: str) -> Folder:
    return Folder(lambda args: ending, lambda args, result: result.masks())


def encode_masks(args: argparse.Namespace, result: ImageSegmentation, ending: str) -> bytes:
    return result.to_bytes(ending)


def encode_preview(args: argparse.Namespace, result: Segmentation | ImageSegmentation, ending: str) -> bytes:
    return picture_bytes(result.draw(is_filled=args.preview_style == "filled"), ending)


def encode_report(args: argparse.Namespace, result: Segmentation | ImageSegmentation, ending: str) -> bytes:
    return json.dumps(result.report, indent=2, ensure_ascii=False).encode() + b"\n"


ENCODE: dict[str, Encoder] = {"output": encode_masks, "preview": encode_preview, "report": encode_report}
