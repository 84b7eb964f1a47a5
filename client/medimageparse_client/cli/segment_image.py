"""medimageparse segment-image"""

import argparse
from dataclasses import replace
from typing import get_args

from medimageparse_contract.image_types import ImageType
from medimageparse_contract.models import MODEL_2D

from medimageparse_client.cli import numbers
from medimageparse_client.cli.arguments import Commands, batch_options, result_name, server_options
from medimageparse_client.cli.batch import segment
from medimageparse_client.cli.console import EXIT_CODE_HELP, WrongCommandLine
from medimageparse_client.cli.kinds import CUT, ENCODE, Kind, Loaded, masks_folder
from medimageparse_client.client import Client
from medimageparse_client.formats import nifti, picture, volume_file
from medimageparse_client.formats.voxels import StoredAxis
from medimageparse_client.formats.windows import Window
from medimageparse_client.progress import Progress
from medimageparse_client.results.image_segmentation import MAX_LABEL, ImageSegmentation

HELP = """\
The first argument is an image or a DICOM file with one slice, or a folder of them, and the others are prompts. With
--prompt or --prompts-file all arguments are images and folders. With --image-type and no prompt, all that the model
knows in such an image is looked for. For several images -o, --preview and --report name folders, each its own, and
the results are called after the images. In the label map (.png) label 1 is the first prompt, 2 the second, and so on;
where two overlap, the more probable one is shown. An .npz holds the probability of each.
With --slice the files are volumes (NIfTI, NRRD, MHA), of which one slice is looked at; -o may name a .nii.gz with the
labels in the volume's voxels.
- as the image reads it from standard input; -o - writes the label map (.png) to standard output.

examples:
  medimageparse segment-image xray.png "left lung" "right lung" -o masks.png --preview overlay.png --report report.json
  medimageparse segment-image xray.png --image-type X-Ray-Chest -o masks.png
  medimageparse segment-image slice.dcm "nodule" --window lung -o masks.npz
  medimageparse segment-image ct.nii.gz "liver" --slice 40 --window abdomen -o liver.nii.gz --preview liver.png

"""


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "segment-image",
        parents=[server_options(), batch_options()],
        help="segment one or more images",
        usage="%(prog)s IMAGE [PROMPT...] -o OUTPUT [options]",
        epilog=HELP + EXIT_CODE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=segment_images, kind=IMAGES)
    parser.add_argument(
        "arguments",
        nargs="+",
        metavar="IMAGE PROMPT",
        help="an image or DICOM file, or with --slice a volume, and the prompts",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=result_name,
        help="label map (.png, with --slice .nii.gz) or probabilities (.npz)",
    )
    parser.add_argument("--preview", type=result_name, help="picture of the image with its labels to write (.png)")
    parser.add_argument(
        "--image-type",
        choices=get_args(ImageType),
        help="kind of image; adds p-values, and alone finds all it has",
    )
    together = parser.add_mutually_exclusive_group()
    together.add_argument(
        "--joint",
        action="store_true",
        default=None,
        help="decode all prompts together",
    )
    together.add_argument(
        "--separate",
        action="store_false",
        dest="joint",
        help="each alone: no prompt changes another",
    )
    parser.add_argument("--p-value-threshold", type=float, metavar="P", help="leave out what is less probable")
    parser.add_argument("--tile", action="store_true", help="look at a large picture in tiles, at its own pixels")
    parser.add_argument("--window", choices=get_args(Window), help="what to see in a CT slice")
    volume = parser.add_argument_group("a slice of a volume")
    volume.add_argument("--slice", type=int, metavar="K", help="which, from 0")
    volume.add_argument("--axis", type=int, choices=get_args(StoredAxis), help="along which stored axis (default: 2)")
    volume.add_argument("--time-point", type=int, metavar="T", help="of which volume of a 4D series, from 0")


def segment_images(args: argparse.Namespace) -> int:
    if args.slice is not None:
        args.kind = SLICES
    elif args.axis is not None or args.time_point is not None:
        raise WrongCommandLine("--axis and --time-point say where a slice of a volume lies; name it with --slice")
    return segment(args)


def segment_image(
    args: argparse.Namespace, client: Client, source: Loaded, prompts: tuple[str, ...], progress: Progress | None
) -> ImageSegmentation:
    return client.segment_image(
        source,
        prompts or None,
        image_type=args.image_type,
        joint=args.joint,
        p_value_threshold=args.p_value_threshold,
        tile=args.tile,
        window=args.window,
        slice_number=args.slice,
        slice_axis=2 if args.axis is None else args.axis,
        time_point=args.time_point,
        progress=progress,
        request_id=args.request_id,
    )


def image_table(result: ImageSegmentation) -> str:
    """One line a prompt, what a recognition left out, then what was used."""
    facts = result.facts
    lines = [f"{'label':>5}  {'highest':>7}  {'pixels':>9}  {'p-value':>7}  {'category':<19}  prompt\n"]
    for prompt, label in result.labels.items():
        found = facts.prompts[label - 1]
        p_value = "-" if found.p_value is None else f"{found.p_value:.3f}"
        cut = CUT if found.truncated else ""
        lines.append(
            f"{label:>5}  {found.highest_probability:>7.2f}  {found.area_pixels:>9}  {p_value:>7}  "
            f"{found.category:<19}  {prompt}{cut}\n"
        )
    lines += [f"left out: {rejected.text} ({rejected.reason})\n" for rejected in facts.rejected]
    # of a slice a picture was made and sent
    tiles = f" | {facts.image.tiles} tiles" if facts.image.tiles > 1 else ""
    used = facts.dicom or facts.slice or f"intensity {facts.image.intensity}"
    return "".join(lines) + f"used: {used}{tiles}\n"


IMAGES = Kind(
    noun="image",
    model=MODEL_2D,
    suffixes=picture.SUFFIXES,
    recognizes=picture.recognizes,
    rejects=picture.is_dicom_without_picture,
    is_one=lambda folder, below: False,
    results={"output": (".png", ".npz"), "preview": (".png",), "report": (".json",)},
    run_files={"statistics": numbers.ENDINGS},
    encode=ENCODE,
    max_prompts={".png": MAX_LABEL},
    segment=segment_image,
    folders={"masks_dir": masks_folder(".png")},
    part=lambda args: "tile" if args.tile else "",
    table=image_table,
)
SLICES = replace(
    IMAGES,
    noun="volume",
    suffixes=volume_file.SUFFIXES,
    recognizes=volume_file.recognizes,
    rejects=lambda path: False,
    results=IMAGES.results | {"output": (*nifti.SUFFIXES[::-1], ".png", ".npz")},
)
