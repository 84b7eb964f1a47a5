"""`make demo`: a phantom CT segmented by sentences through a real tritonserver on the CPU. Phantoms, no anatomy."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from medimageparse_client import Client
from serve import ServeError, TritonServer

from medimageparse_demo.evaluate import dice
from medimageparse_demo.phantoms import make_phantom
from medimageparse_demo.repository import demo_repository

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
NOTICE = "The demo checkpoint was trained on phantoms: it shows the service at work and knows no anatomy."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("demo_output"), help="folder for volume, masks, picture, report"
    )
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    phantom = make_phantom(SEED, "CT")
    volume = nib.Nifti1Image(phantom.intensities, phantom.affine)
    volume.header.set_xyzt_units("mm")
    volume.to_filename(out / "ct.nii.gz")
    say(f"drew a phantom CT of {' x '.join(map(str, volume.shape))} voxels")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        repository = demo_repository(Path(folder) / "model_repository")
        say("starting tritonserver on the CPU ...")
        try:
            with TritonServer(repository, runtime="cpu") as server, Client(server.grpc_url) as client:
                say(f"ready after {time.monotonic() - started:.0f} s; asking for {len(PROMPTS)} prompts ...")
                started = time.monotonic()
                result = client.segment(out / "ct.nii.gz", list(PROMPTS))
                say(f"answered in {time.monotonic() - started:.0f} s")
        except ServeError as error:
            print(error, file=sys.stderr)
            return 1
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
    print(f"\n{NOTICE}\nWritten to {out}: ct.nii.gz, masks.nii.gz, masks.png, report.json")
    return 0


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
