"""The options of medimageparse segment that segment-image has not."""

import argparse
from typing import get_args

from medimageparse_contract.options import MAX_DRAWS, Intensity, Orientation

from medimageparse_client.cli.arguments import file_name, not_negative, result_name
from medimageparse_client.cli.sources import list_of
from medimageparse_client.results.segmented import SegType
from medimageparse_client.results.writers import MAY_OVERLAP


def add_maps(parser: argparse.ArgumentParser) -> None:
    """What else is made of the answer."""
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
        "--store",
        action="store_true",
        help="put a DICOM SEG into the study of the series at a dicomweb:// address",
    )
    parser.add_argument(
        "--overlap",
        action="store_true",
        help=f"structures of a {list_of(MAY_OVERLAP)} are whole and may overlap; without it they are those of the "
        "label map",
    )
    parser.add_argument(
        "--mesh", type=result_name, metavar="DIR", help="folder for the surface of each prompt, in mm (LPS)"
    )
    parser.add_argument("--mesh-format", choices=["stl", "ply"], default="stl", help="of --mesh (default: %(default)s)")
    parser.add_argument(
        "--mesh-smoothing",
        type=not_negative,
        default=0.0,
        metavar="MM",
        help="sigma of the Gaussian that smooths each mask before its surface is taken (default: 0, the voxels' steps)",
    )
    parser.add_argument(
        "--no-overlap",
        action="store_true",
        help="--masks-dir and --mesh take the masks out of the label map; without it they are whole and may overlap",
    )


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
