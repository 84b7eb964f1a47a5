"""`make demo`: a phantom CT and a phantom X-ray segmented by sentences through a real tritonserver on the CPU."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from medimageparse_client import Client
from medimageparse_serving.launch.serve import PUBLIC_MODELS, ServeError, TritonServer
from PIL import Image

from medimageparse_demo.image_prompts import CATEGORY_OF
from medimageparse_demo.images import make_image
from medimageparse_demo.phantoms import make_phantom
from medimageparse_demo.repository import demo_repository
from medimageparse_demo.vocabulary import KNOWN, PRESET

SEED = 4  # a torso with ten structures and no left kidney; training never drew it
PROMPTS = {
    "CT imaging of the liver in the abdomen": "liver",
    "spleen": "spleen",
    "the left kidney": "left kidney",
    "Right kidney, as seen in abdominal CT": "right kidney",
    "segment the stomach": "stomach",
    "aorta": "aorta",
    "vertebral column": "spine",
    "urinary bladder": "bladder",
    "please outline the heart": "heart",
    "pancreas": None,
    "brain tumour in post-contrast MR": None,
}
IMAGE_SEED = 1040  # a chest wider than high, with a patch in a lung
IMAGE_PROMPTS = {
    "show me the pneumonia": "infection",  # before the lung it lies in: in the label map the first of equals wins
    "left lung in chest X-ray": "left lung",
    "the right lung": "right lung",
    "heart": "heart",
}
NOTICE = "The demo checkpoints were trained on phantoms: they show the service at work and know no anatomy."


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of two masks, 0..1."""
    return float(2 * np.count_nonzero(predicted & truth) / (np.count_nonzero(predicted) + np.count_nonzero(truth)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for what is drawn and answered")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        repository = demo_repository(Path(folder) / "model_repository")
        say("starting tritonserver on the CPU ...")
        try:
            with TritonServer(repository, "cpu", PUBLIC_MODELS) as server, Client(server.grpc_url) as client:
                say(f"ready after {time.monotonic() - started:.0f} s")
                segment_volume(client, out)
                segment_everything(client, out)
                segment_image(client, out)
        except ServeError as error:
            print(error, file=sys.stderr)
            return 1
    print(f"\n{NOTICE}")
    for structures in KNOWN.values():
        for kind, names in structures.items():
            print(f"known in {kind}: {', '.join(names)}")
    return 0


def segment_volume(client: Client, out: Path) -> None:
    """3D: one label map for the prompts, some of which name what is not there."""
    phantom = make_phantom(SEED, "CT")
    volume = nib.Nifti1Image(phantom.intensities, phantom.affine)
    volume.header.set_xyzt_units("mm")
    volume.to_filename(out / "ct.nii.gz")
    say(f"\na phantom CT of {' x '.join(map(str, volume.shape))} voxels; asking for {len(PROMPTS)} prompts ...")
    started = time.monotonic()
    result = client.segment(out / "ct.nii.gz", list(PROMPTS))
    say(f"answered in {time.monotonic() - started:.0f} s")
    result.save(out / "masks.nii.gz")
    result.preview(out / "masks.png")
    (out / "report.json").write_text(json.dumps(result.report, indent=2) + "\n")
    print(f"\n{'prompt':<40} {'in phantom':>10} {'found':>6} {'score':>6} {'ml':>8} {'Dice':>6}")
    for label, (entry, structure) in enumerate(zip(result.report["prompts"], PROMPTS.values(), strict=True), start=1):
        is_present = structure in phantom.structures
        truth = phantom.labels == phantom.structures[structure] if is_present else np.zeros(volume.shape, bool)
        overlap = f"{dice(result.label_map == label, truth):.3f}" if is_present else "-"
        print(
            f"{entry['text']:<40} {'yes' if is_present else 'no':>10} {'yes' if entry['present'] else 'no':>6} "
            f"{entry['highest_score']:>6.2f} {entry['volume_ml']:>8.1f} {overlap:>6}"
        )
    print(f"\nwritten to {out}: ct.nii.gz, masks.nii.gz, masks.png, report.json")


def segment_everything(client: Client, out: Path) -> None:
    """3D: all that the demo checkpoint knows in a CT, without a prompt."""
    say(f"\nlooking for all of the preset {PRESET} in it ...")
    result = client.segment(out / "ct.nii.gz", preset=PRESET)
    result.save(out / "everything.nii.gz")
    present = [entry["id"] for entry in result.report["prompts"] if entry["present"]]
    absent = [entry["id"] for entry in result.report["prompts"] if not entry["present"]]
    print(f"found: {', '.join(present)}\nin vain: {', '.join(absent)}\nwritten to {out}: everything.nii.gz")


def segment_image(client: Client, out: Path) -> None:
    """2D: a probability map and a category for each prompt."""
    phantom = make_image(IMAGE_SEED, "X-Ray-Chest")
    Image.fromarray(phantom.pixels).save(out / "xray.png")
    rows, columns, _ = phantom.pixels.shape
    say(f"\na phantom X-ray of {columns} x {rows} pixels; asking for {len(IMAGE_PROMPTS)} prompts ...")
    started = time.monotonic()
    result = client.segment_image(out / "xray.png", list(IMAGE_PROMPTS))
    say(f"answered in {time.monotonic() - started:.1f} s")
    result.save(out / "xray_masks.png")
    result.preview(out / "xray_overlay.png")
    (out / "xray_report.json").write_text(json.dumps(result.report, indent=2) + "\n")
    print(f"\n{'prompt':<40} {'should be':>16} {'category':>16} {'pixels':>8} {'Dice':>6}")
    for prompt, structure in IMAGE_PROMPTS.items():
        entry, overlap = result.describe(prompt), dice(result.mask(prompt), phantom.masks[structure])
        print(
            f"{prompt:<40} {CATEGORY_OF[structure]:>16} {entry['category']:>16} {entry['area_pixels']:>8} "
            f"{overlap:>6.3f}"
        )
    print(f"\nwritten to {out}: xray.png, xray_masks.png, xray_overlay.png, xray_report.json")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
