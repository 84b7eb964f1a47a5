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
from medimageparse_client.cli.kinds import ENCODE, Kind, Loaded
from medimageparse_client.cli.sources import list_of
from medimageparse_client.cli.volume_table import volume_table
from medimageparse_client.client import Client
from medimageparse_client.errors import InvalidVolume
from medimageparse_client.files import ending_of
from medimageparse_client.formats import volume_file
from medimageparse_client.formats.series import holds_dicom, holds_series
from medimageparse_client.progress import Progress
from medimageparse_client.results import label_table
from medimageparse_client.results.segmentation import Segmentation
from medimageparse_client.results.writers import ENDINGS, MAY_OVERLAP, OF_SERIES, SEG, SegType

NIFTI = (".nii.gz", ".nii")
MAPS = ("probabilities", "uncertainty", "instances")  # options that name their file
HELP = """\
The first argument is a volume (.nii, .nii.gz, .nrrd, .mha, a folder or a zip of one DICOM series), or a folder
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
    parser.add_argument(
        "-o", "--output", type=result_name, help=f"result to write ({', '.join(ENDINGS)}), or - for .nii.gz"
    )
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
        "--seg-type",
        choices=get_args(SegType),
        default="binary",
        help="what -o NAME.seg.dcm holds: a bit for each voxel and segment, which every viewer reads; the label map, "
        "thirty times smaller; or probabilities (default: %(default)s)",
    )
    parser.add_argument(
        "--overlap",
        action="store_true",
        help=f"structures of a {list_of(MAY_OVERLAP)} are whole and may overlap; without it they are those of the label "
        "map",
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
    if writes(args, *OF_SERIES) and not holds_series(source):
        raise InvalidVolume("a DICOM object refers to the slices of a series, and this is none; write a .nii.gz")
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
    if args.probabilities or args.seg_type == "fractional":
        return "probabilities"
    return "masks" if args.overlap or (args.masks_dir and not args.no_overlap) else None


def writes(args: argparse.Namespace, *endings: str) -> bool:
    return bool(ending_of(args.output or "", endings))


def check_and_segment(args: argparse.Namespace) -> int:
    if args.uncertainty and args.draws == 1:
        raise WrongCommandLine("--uncertainty is the spread of several draws; give --draws 8, for example")
    if args.instances and args.draws > 1:
        raise WrongCommandLine("--instances are those of one draw; leave out --draws")
    if args.resample_tilt and writes(args, *OF_SERIES):
        raise WrongCommandLine("--resample-tilt makes voxels that are not those of the slices; write a .nii.gz")
    if args.overlap and (not writes(args, *MAY_OVERLAP) or args.seg_type != "binary"):
        raise WrongCommandLine(f"--overlap is for -o {list_of(MAY_OVERLAP)} files, of DICOM SEG for --seg-type binary")
    if args.seg_type != "binary" and not writes(args, SEG):
        raise WrongCommandLine(f"--seg-type is for -o NAME{SEG}; give that, or leave it out")
    return segment(args)


def encode_output(args: argparse.Namespace, result: Segmentation, ending: str) -> bytes:
    return result.to_bytes(ending, seg_type=args.seg_type)


def encode_map(name: str, args: argparse.Namespace, result: Segmentation, ending: str) -> bytes:
    return result.map_bytes(name, ending)


def is_series_folder(folder: Path, below: bool) -> bool:
    """Whether a folder is one volume: DICOM slices lie in it, or below it, and no volumes in files of their own."""
    return not any(volume_file.recognizes(path) for path in folder.iterdir()) and holds_dicom(folder, below=below)


VOLUMES = Kind(
    noun="volume",
    model=MODEL_3D,
    suffixes=(*volume_file.SUFFIXES, ".zip"),
    recognizes=volume_file.recognizes,
    rejects=lambda path: False,
    is_one=is_series_folder,
    results={"output": ENDINGS, "preview": (".png",), "report": (".json",), **dict.fromkeys(MAPS, NIFTI)},
    run_files={"statistics": numbers.ENDINGS, "label_table": label_table.ENDINGS},
    encode=ENCODE | {"output": encode_output} | {name: partial(encode_map, name) for name in MAPS},
    max_prompts={},
    segment=segment_volume,
    mask_ending=".nii.gz",
    part=lambda args: "slice",
    table=volume_table,
)
