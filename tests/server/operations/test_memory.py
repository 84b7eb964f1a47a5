"""Large volumes that were answered leave next to nothing behind in tritonserver."""

import nibabel as nib
import numpy as np
import psutil
from helpers.running_server import triton_server
from medimageparse_client import Client

SHAPE = (4096, 4096, 4)  # 67 MB in few slices
N_REQUESTS = 8
KEPT = 3  # files' worth that its allocator may hold; with Triton's pool of requests it were six and more


def test_answered_volumes_are_not_kept(volumes_alone):
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[1024:3072, 1024:3072] = 120
    volume = nib.Nifti1Image(voxels, np.diag([-0.1, 0.1, 2, 1]))
    with triton_server(volumes_alone) as server, Client(server.grpc_url, timeout_s=300) as client:
        before = own_bytes(server)
        for _ in range(N_REQUESTS):
            client.segment(volume, "liver")
        kept = own_bytes(server) - before

    assert kept < KEPT * voxels.nbytes


def own_bytes(server):
    """What tritonserver itself holds in memory, without what it shares with its steps."""
    memory = psutil.Process(server.process.pid).memory_info()
    return memory.rss - memory.shared
