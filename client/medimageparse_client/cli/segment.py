"""medimageparse segment"""

import argparse
from functools import partial
from pathlib import Path
from typing import get_args

from medimageparse_contract.models import MODEL_3D
from medimageparse_contract.options import MAX_DRAWS, Intensity, Maps, Orientation

from medimageparse_client.cli import numbers
from medimageparse_client.cli.arguments import Commands, batch_options, file_name, result_name, server_options
from medimageparse_client.cli.batch import segment
from medimageparse_client.cli.console import EXIT_CODE_HELP, WrongCommandLine
from medimageparse_client.cli.kinds import CUT, ENCODE, Kind, Loaded
from medimageparse_client.client import Client
from medimageparse_client.formats import nifti, voxels
from medimageparse_client.formats.series import holds_dicom
from medimageparse_client.progress import Progress
from medimageparse_client.results import label_table
from medimageparse_client.results.report import VolumePrompt
from medimageparse_client.results.segmentation import Segmentation

NIFTI = (".nii.gz", ".nii")
MAPS = ("probabilities", "uncertainty", "instances")  # options that name their file
WHY_ABSENT = {
    "low_score": "its score is at most 0.5 on every slice",
    "overlap": "other prompts have what it found",
    "empty_mask": "it scored, but no voxel is more probable than not",
}
HELP = """\
The first argument is a volume (.nii, .nii.gz, a folder or a zip of one DICOM series, a multi-frame file), or a folder
of volumes, and the others are prompts. With --prompt or --prompts-file
all arguments are volumes and folders. For several volumes -o, --preview and --report name folders, and the results
are called after the volumes. In the label map, label 1 is the first prompt, 2 the second, and so on.
- as the volume reads it from standard input; -o - writes the label map (.nii.gz) to standard output.

examples:
  medimageparse segment ct.nii.gz "liver" "left kidney" -o masks.nii.gz --preview masks.png --report report.json
  medimageparse segment scans/ "liver" "left kidney" -o masks/ --skip-existing
  medimageparse segment a.nii.gz b.nii.gz --prompt "liver" --prompt "left kidney" -o masks/ --preview masks/

"""


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "segment",
        parents=[server_options(), batch_options()],
        help="segment one or more volumes",
        usage="%(prog)s VOLUME PROMPT... -o OUTPUT [options]",
        epilog=HELP + EXIT_CODE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=check_and_segment, kind=VOLUMES, image_type=None)
    parser.add_argument("arguments", nargs="+", metavar="VOLUME PROMPT", help="a volume and the prompts")
    parser.add_argument("-o", "--output", type=result_name, help="label map to write (.nii.gz or .nii)")
    parser.add_argument("--preview", type=result_name, help="picture of a few slices to write (.png)")
    parser.add_argument(
        "--label-table",
        type=file_name,
        metavar="FILE",
        help="names and colours of the labels, for ITK-SNAP (.label, .txt) or 3D Slicer (.ctbl)",
    )
    parser.add_argument(
        "--probabilities",
        type=result_name,
        metavar="FILE",
        help="4D file to write (.nii.gz or .nii): a volume for each prompt alone, 255 is 1.0",
    )
    parser.add_argument(
        "--draws",
        type=int,
        choices=range(1, MAX_DRAWS + 1),
        metavar="K",
        default=1,
        help=f"samples of the model, 1 to {MAX_DRAWS}: the answer is their mean, and the report says how they differ",
    )
    parser.add_argument(
        "--uncertainty",
        type=result_name,
        metavar="FILE",
        help="4D file to write (.nii.gz or .nii): how far the --draws of each prompt spread, 255 is 0.5",
    )
    parser.add_argument(
        "--instances",
        type=result_name,
        metavar="FILE",
        help="file to write (.nii.gz or .nii): a number for each thing that hangs together",
    )
    parser.add_argument(
        "--no-overlap",
        action="store_true",
        help="--masks-dir takes the masks out of the label map; without it they are whole and may overlap",
    )
    add_series(parser.add_argument_group("which volume of the input"))
    add_reading(parser.add_argument_group("how the volume is read"))


def add_series(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--time-point", type=int, metavar="N", help="which volume of a 4D series to send, from 0")
    group.add_argument(
        "--series", metavar="N|UID", help="which series of a folder or zip; without it several are listed with numbers"
    )
    group.add_argument(
        "--allow-gaps", action="store_true", help="take DICOM slices at unequal distances; nothing is interpolated"
    )
    group.add_argument(
        "--resample-tilt", action="store_true", help="take the gantry tilt out of a DICOM series, by interpolation"
    )


def add_reading(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--intensity",
        choices=get_args(Intensity),
        default="auto",
        help="how values become grey; name a ct- window for a CT that auto does not take for one, as a crop without "
        "air (default: %(default)s)",
    )
    group.add_argument(
        "--orientation",
        choices=get_args(Orientation),
        default="LAS",
        help="stored takes the slices as the file has them, not as the patient lies (default: %(default)s)",
    )
    group.add_argument(
        "--slice-axis",
        choices=["auto", "0", "1", "2"],
        default="auto",
        help="axis to slice along, where auto does not take that of the scan (default: %(default)s)",
    )


def segment_volume(
    args: argparse.Namespace,
    client: Client,
    source: Loaded,
    prompts: tuple[str, ...],
    progress: Progress | None,
) -> Segmentation:
    return client.segment(
        source,
        prompts,
        intensity=args.intensity,
        orientation=args.orientation,
        slice_axis=args.slice_axis,
        time_point=args.time_point,
        maps=maps_for(args),
        instances=bool(args.instances),
        draws=args.draws,
        series=args.series,
        allow_gaps=args.allow_gaps,
        resample_tilt=args.resample_tilt,
        progress=progress,
    )


def maps_for(args: argparse.Namespace) -> Maps | None:
    """What the server is asked for besides the label map."""
    if args.probabilities:
        return "probabilities"
    return "masks" if args.masks_dir and not args.no_overlap else None


def check_and_segment(args: argparse.Namespace) -> int:
    if args.uncertainty and args.draws == 1:
        raise WrongCommandLine("--uncertainty is the spread of several draws; give --draws 8, for example")
    if args.instances and args.draws > 1:
        raise WrongCommandLine("--instances are those of one draw; leave out --draws")
    return segment(args)


def encode_map(name: str, result: Segmentation, ending: str) -> bytes:
    return result.map_bytes(name, ending)


def is_series_folder(folder: Path, below: bool) -> bool:
    """Whether a folder is one volume: DICOM slices lie in it, or below it, and no volumes in files of their own."""
    return not any(voxels.recognizes(path) for path in folder.iterdir()) and holds_dicom(folder, below=below)


def volume_table(result: Segmentation) -> str:
    """One line a prompt, then what was used."""
    facts = result.facts
    lines = [f"{'label':>5}  {'score':>5}  {'voxels':>9}  {'ml':>8}  prompt\n"]
    for prompt, label in result.labels.items():
        found = facts.prompts[label - 1]
        ml = "-" if found.volume_ml is None else f"{found.volume_ml:.1f}"
        told = besides(found) + CUT * found.truncated + "".join(f"  ({reason})" for reason in reasons(found))
        lines.append(f"{label:>5}  {found.highest_score:>5.2f}  {found.voxels:>9}  {ml:>8}  {prompt}{told}\n")
    used = facts.image
    sides = f"stored as {used.stored_orientation}, read as {used.orientation}"
    words = (
        f"intensity {used.intensity}",
        sides if used.sides_known else "which side is left is not known",
        f"sliced along axis {'xyz'[used.slice_axis_stored]}",
    )
    return "".join(lines) + f"used: {' | '.join(words)}\n"


def besides(found: VolumePrompt) -> str:
    """What draws and instances say of a prompt."""
    words = ""
    if found.draws:
        ml = "{minimum:.1f}..{maximum:.1f}".format(**found.draws.volume_ml)
        words += f"  (draws: {ml} ml, Dice {found.draws.dice:.3f})"
    return words if found.instances is None else f"{words}  ({len(found.instances)} instances)"


def reasons(found: VolumePrompt) -> list[str]:
    """Why a prompt is absent, and to which labels it lost slices."""
    why = WHY_ABSENT.get(found.why_absent or "", found.why_absent)
    lost = [f"overlaps label {lost.label}, which has {lost.slices} of its slices" for lost in found.lost_to]
    return [*([f"absent: {why}"] if why else []), *lost]


VOLUMES = Kind(
    noun="volume",
    model=MODEL_3D,
    suffixes=(*nifti.SUFFIXES, ".zip"),
    recognizes=voxels.recognizes,
    rejects=lambda path: False,
    is_one=is_series_folder,
    results={"output": NIFTI, "preview": (".png",), "report": (".json",), **dict.fromkeys(MAPS, NIFTI)},
    run_files={"statistics": numbers.ENDINGS, "label_table": label_table.ENDINGS},
    encode=ENCODE | {name: partial(encode_map, name) for name in MAPS},
    max_prompts={},
    segment=segment_volume,
    mask_ending=".nii.gz",
    has_slices=True,
    table=volume_table,
)
