"""networks.py on one GPU: every way to run the published 3D networks, at several sizes.

Rows are written as soon as they are measured, so that a run that is cut off leaves them. The script needs torch,
onnxruntime, onnxscript and psutil, and no server; `--device cpu --variant TINY` tries it out.
"""

from networks import main
from recording import RESULTS
from techniques import TECHNIQUES

if __name__ == "__main__":
    names = [name for name in TECHNIQUES if name != "openvino-bf16"]
    sizes = {"slices": [1, 4, 8], "prompts": [1, 15], "rounds": 100}
    main(results=RESULTS / "gpu_networks.csv", device="cuda", models=["3d"], techniques=names, **sizes)
