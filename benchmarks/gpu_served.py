"""The published sizes with random weights through a real tritonserver, networks by ONNX Runtime's CUDA provider.

This is the server of the nvidia-pytriton wheel with the networks as python steps: features travel between processes
through the CPU's memory. It shows the served pipeline on a GPU machine, not the speed of the native backends. One thing
is varied at a time, as in scaling.py; `--device cpu` tries it out.
"""

from recording import RESULTS
from scaling import main

if __name__ == "__main__":
    sizes = {"slices": [63], "prompts": [15, 1], "window_size": [4, 8], "threads": [0], "instances": [1], "requests": 5}
    main(description=__doc__, results=RESULTS / "gpu_served.csv", device="cuda", windows_in_flight=2, **sizes)
