"""The surface of a mask in mm: closed, its front outwards, and around as much as the voxels take."""

import io

import numpy as np
import pytest
import trimesh
from medimageparse_client import Client
from medimageparse_client.cli import main
from medimageparse_client.results.meshes import ENCODERS, surface

SHAPE = 60, 50, 40
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def ball(shape=SHAPE):
    """An ellipsoid of voxels, not in the middle."""
    x, y, z = np.indices(shape)
    return ((x - 25) / 18) ** 2 + ((y - 24) / 14) ** 2 + ((z - 20) / 12) ** 2 < 1


def loaded(data, ending):
    return trimesh.load(io.BytesIO(data), file_type=ending[1:])


@pytest.fixture(params=[1, -1], ids=["right-handed", "left-handed"])
def placed(affine, request):
    return affine @ np.diag([request.param, 1, 1, 1])


@pytest.mark.parametrize("ending", ENCODERS)
def test_a_mesh_is_closed_and_holds_the_volume_of_the_voxels(ending, placed):
    mask = ball()
    mesh = loaded(ENCODERS[ending](*surface(mask, placed)), ending)
    assert mesh.is_watertight
    mm3 = mask.sum() * abs(np.linalg.det(placed[:3, :3]))
    assert mesh.volume == pytest.approx(mm3, rel=0.03)  # positive: its front is outside
    middle = (TO_LPS @ placed @ [*np.argwhere(mask).mean(0), 1])[:3]
    np.testing.assert_allclose(mesh.center_mass, middle, atol=0.05)


SMALL = {
    "one voxel": np.ones((1, 1, 1), bool),
    "a thread": np.ones((1, 1, 30), bool),
    "a sheet": np.ones((30, 1, 20), bool),
    "a ball": (np.indices((7, 7, 7)) - 3).__pow__(2).sum(0) < 8,
    "two parts and a hole": np.pad(ball((44, 40, 34)), 2) ^ (np.indices((48, 44, 38)).sum(0) == 71),
    "noise": np.random.default_rng(1).random((20, 20, 20)) < 0.3,
}


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
@pytest.mark.parametrize("name", SMALL)
def test_small_and_thin_things_keep_their_volume(name, smoothing, placed):
    corners, faces = surface(SMALL[name], placed, smoothing)
    mesh = loaded(ENCODERS[".ply"](corners, faces), ".ply")
    assert mesh.volume == pytest.approx(SMALL[name].sum() * abs(np.linalg.det(placed[:3, :3])), rel=0.03)


def test_smoothing_takes_the_steps(placed):
    plain, smooth = (loaded(ENCODERS[".ply"](*surface(ball(), placed, mm)), ".ply") for mm in (0.0, 1.0))
    assert smooth.is_watertight
    assert smooth.area < 0.97 * plain.area


@pytest.mark.parametrize("ending", ENCODERS)
def test_at_the_edge_of_the_volume_it_is_closed_and_of_nothing_it_is_empty(ending, placed):
    assert loaded(ENCODERS[ending](*surface(np.ones((5, 6, 7), bool), placed)), ending).is_watertight
    corners, faces = surface(np.zeros((5, 6, 7), bool), placed)
    assert not len(corners)
    assert ENCODERS[ending](corners, faces) == ENCODERS[ending](np.empty((0, 3)), np.empty((0, 3), np.int32))


def test_a_file_for_each_prompt(triton, volume_file, volume, affine, tmp_path):
    with Client() as client:
        result = client.segment(volume_file, ["liver", "spleen", "nothing"])
    result.save_meshes(tmp_path / "a", ".ply")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["liver.ply", "nothing.ply", "spleen.ply"]
    command = ["segment", str(volume_file), "liver", "spleen", "--mesh", str(tmp_path / "b"), "--no-overlap"]
    assert main(command) == 0
    stl = loaded((tmp_path / "b/liver.stl").read_bytes(), ".stl")
    lps = np.column_stack([np.argwhere(volume == 1), np.ones((volume == 1).sum())]) @ (TO_LPS @ affine).T
    np.testing.assert_allclose(stl.bounds.mean(0), (lps[:, :3].min(0) + lps[:, :3].max(0)) / 2, atol=0.5)
    with pytest.raises(ValueError, match=r"\.stl or \.ply"):
        result.meshes(".obj")
