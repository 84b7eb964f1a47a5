"""One file a structure: its name, and its bytes."""

import gzip
import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from medimageparse_client.formats.voxels import HEADERS, read_layout

MAX_NAME = 100  # characters


def mask_names(labels: Mapping[str, int], ending: str) -> dict[str, str]:
    """Prompt -> name of its file; a name that another prompt has already gets the label before it."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for prompt, label in labels.items():
        name = re.sub(r"[^\w.-]+", "_", prompt).strip("._")[:MAX_NAME] or f"label_{label}"
        while name.casefold() in taken:  # "2_a", "a" and "a!" would give one name twice
            name = f"{label}_{name}"
        taken.add(name.casefold())
        names[prompt] = name + ending
    return names


def encode_mask(mask: npt.NDArray[np.bool_], label_map: bytes) -> bytes:
    """A mask [x,y,z] as a .nii.gz of 0 and 1, with the header of the label map, which is one too."""
    content = gzip.decompress(label_map)
    layout = read_layout(content)
    kind, order = HEADERS[content[:4]]
    header = kind(content[: kind.sizeof_hdr], order, check=False)
    header.set_data_dtype(np.uint8)
    start = header.binaryblock + content[kind.sizeof_hdr : layout.start]
    return gzip.compress(start + mask.astype(np.uint8).tobytes(order="F"), mtime=0)
