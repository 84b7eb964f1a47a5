"""medimageparse segment"""

import argparse
from functools import partial
from pathlib import Path

from medimageparse_contract.models import MODEL_3D
from medimageparse_contract.options import Maps

from medimageparse_client.cli import numbers
from medimageparse_client.cli.arguments import (
    Commands,
    batch_options,
    result_name,
    server_options,
)
from medimageparse_client.cli.batch import segment
from medimageparse_client.cli.console import EXIT_CODE_HELP, WrongCommandLine
from medimageparse_client.cli.kinds import ENCODE, Folder, Kind, Loaded, masks_folder
from medimageparse_client.cli.segment_options import add_maps, add_reading, add_series
from medimageparse_client.cli.sources import list_of
from medimageparse_client.cli.volume_table import volume_table
from medimageparse_client.cli.waiting import count_slices
from medimageparse_client.client import Client
from medimageparse_client.errors import InvalidVolume
from medimageparse_client.files import ending_of
from medimageparse_client.formats import volume_file
from medimageparse_client.formats.body_part import AUTO
from medimageparse_client.formats.dicomweb_address import is_address
from medimageparse_client.formats.series import holds_dicom
from medimageparse_client.progress import Progress
from medimageparse_client.results import label_table
from medimageparse_client.results.segmentation import Segmentation
from medimageparse_client.results.writers import ENDINGS, MAY_OVERLAP, OF_SERIES, SEG, check_can_refer

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
    add_maps(parser)
    add_series(parser.add_argument_group("which volume of the input"))
    add_reading(parser.add_argument_group("how the volume is read"))


def segment_volume(
    args: argparse.Namespace,
    client: Client,
    source: Loaded,
    prompts: tuple[str, ...],
    progress: Progress | None,
) -> Segmentation:
    check_can_refer(ending_of(args.output or "", OF_SERIES), source)
    if args.store and not is_address(source):
        raise InvalidVolume("--store puts the SEG into the archive of the series; give a dicomweb:// address")
    return client.segment(
        source,
        None if args.preset else prompts,
        preset=args.preset,
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
        request_id=args.request_id,
    )


def maps_for(args: argparse.Namespace) -> Maps | None:
    """What the server is asked for besides the label map."""
    if args.probabilities or args.seg_type == "fractional":
        return "probabilities"
    return "masks" if args.overlap or ((args.masks_dir or args.mesh) and not args.no_overlap) else None


def writes(args: argparse.Namespace, *endings: str) -> bool:
    return bool(ending_of(args.output or "", endings))


def check_and_segment(args: argparse.Namespace) -> int:
    if args.uncertainty and args.draws == 1:
        raise WrongCommandLine("--uncertainty is the spread of several draws; give --draws 8, for example")
    if args.instances and args.draws > 1:
        raise WrongCommandLine("--instances are those of one draw; leave out --draws")
    if args.resample_tilt and (args.store or writes(args, *OF_SERIES)):
        raise WrongCommandLine("--resample-tilt makes voxels that are not those of the slices; write a .nii.gz")
    if args.overlap and (args.seg_type != "binary" or not (args.store or writes(args, *MAY_OVERLAP))):
        raise WrongCommandLine(
            f"--overlap is for -o {list_of(MAY_OVERLAP)} files and --store, of DICOM SEG for --seg-type binary"
        )
    if args.store and args.skip_existing:
        raise WrongCommandLine("--skip-existing does not know what the archive has; leave it out, or --store")
    if args.preset == AUTO and args.label_table:
        raise WrongCommandLine("--label-table is of structures that are known beforehand; name a --preset, not auto")
    if args.seg_type != "binary" and not (args.store or writes(args, SEG)):
        raise WrongCommandLine(f"--seg-type is for -o NAME{SEG} and --store; give one, or leave it out")
    return segment(args)


def encode_output(args: argparse.Namespace, result: Segmentation, ending: str) -> bytes:
    return result.to_bytes(ending, seg_type=args.seg_type)


def make_meshes(args: argparse.Namespace, result: Segmentation) -> dict[str, bytes]:
    return result.meshes(f".{args.mesh_format}", smoothing_mm=args.mesh_smoothing)


def store_seg(args: argparse.Namespace, result: Segmentation, address: str) -> None:
    from medimageparse_client.formats import dicomweb  # reading the series needed the same extra

    dicomweb.store(address, [result.to_bytes(SEG, seg_type=args.seg_type)])


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
    folders={
        "masks_dir": masks_folder(".nii.gz"),
        "mesh": Folder(lambda args: f".{args.mesh_format}", make_meshes),
    },
    store=store_seg,
    part=lambda args: "slice",
    count=lambda args, source: count_slices(source, args.orientation, args.slice_axis),
    table=volume_table,
)
