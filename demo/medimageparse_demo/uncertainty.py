"""Where eight draws of the demo differ: `python -m medimageparse_demo.uncertainty`, the picture of docs/api.md."""

import argparse
import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from medimageparse_client import Client
from medimageparse_client.results.preview import draw_preview
from medimageparse_client.results.segmentation import Segmentation
from medimageparse_contract.models import MODEL_3D
from medimageparse_serving.launch.serve import TritonServer
from numpy.typing import NDArray
from PIL import Image

from medimageparse_demo.demo import SEED
from medimageparse_demo.phantoms import make_phantom
from medimageparse_demo.repository import demo_repository

PROMPTS = ("liver", "spleen", "stomach", "the right kidney")
DRAWS = 8
LEVELS = (0.05, 0.15, 0.3)  # of the standard deviation; 0.5 is the largest there is
SPREAD_OF_ONE = 0.5 / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for picture, map and report")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    phantom = make_phantom(SEED, "CT")
    with tempfile.TemporaryDirectory() as folder:
        repository = demo_repository(Path(folder) / "model_repository")
        with TritonServer(repository, "cpu", (MODEL_3D,)) as server, Client(server.grpc_url) as client:
            result = client.segment(nib.Nifti1Image(phantom.intensities, phantom.affine), PROMPTS, draws=DRAWS)
    draw(result, phantom.intensities).save(out / "uncertainty.png")
    result.save_map("uncertainty", out / "uncertainty.nii.gz")
    (out / "uncertainty.json").write_text(json.dumps(result.report, indent=2) + "\n")


def draw(result: Segmentation, voxels: NDArray[np.int16]) -> Image.Image:
    """The largest spread of any prompt, in steps."""
    spread = result.uncertainty.max(0) * SPREAD_OF_ONE
    steps = np.digitize(spread, LEVELS).astype(np.uint8)
    legend = {
        step: f"standard deviation over {low:g}: {(spread >= low).sum()} voxels"
        for step, low in enumerate(LEVELS, start=1)
    }
    bounds = result.facts.image.intensity.bounds
    return draw_preview(voxels, steps, result.affine, legend, grey_range=bounds)


if __name__ == "__main__":
    main()
