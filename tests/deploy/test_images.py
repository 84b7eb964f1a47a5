"""Which images run: a kustomization names each in one place, and can pin all by their digests."""

import re
import shutil

import pytest
import yaml
from helpers import kustomize
from helpers.manifests import FOLDER, OVERLAYS
from helpers.places import ROOT

DIGESTS = {"medimageparse-triton": f"sha256:{'a' * 64}", "envoyproxy/envoy": f"sha256:{'b' * 64}"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return shutil.copytree(FOLDER, tmp_path_factory.mktemp("deploy") / "kubernetes")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_digest_said_once_is_that_of_every_container(tree, overlay):
    pinned = tree / f"pinned-{overlay.replace('/', '-')}"
    pinned.mkdir()
    images = [{"name": name, "newName": f"registry.example/{name}", "digest": d} for name, d in DIGESTS.items()]
    text = {"kind": "Kustomization", "resources": [f"../{overlay}"], "images": images}
    (pinned / "kustomization.yaml").write_text(yaml.dump(text))
    found = [c["image"] for manifest in kustomize.build(pinned) for c in kustomize.containers(manifest)]
    assert found
    assert set(found) <= {f"registry.example/{name}@{digest}" for name, digest in DIGESTS.items()}


@pytest.mark.parametrize("manifest", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_no_manifest_names_an_image_where_a_kustomization_does_not_look(manifest):
    """As `image:` of a container, and nowhere else: no argument, no variable, no annotation."""
    images = r"(medimageparse-triton|envoyproxy/envoy|nvcr\.io)[:@/]\S"
    for line in manifest.read_text().splitlines():
        if re.search(images, line.partition("#")[0]):
            assert re.fullmatch(r"\s*(- )?image: \S+\s*(#.*)?", line)


def test_the_dockerfile_takes_tritons_image_from_one_argument():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM ")] == ["FROM $TRITON"]
    [named] = [line for line in lines if line.startswith("ARG TRITON=")]
    assert re.fullmatch(r"ARG TRITON=nvcr\.io/nvidia/tritonserver:\d\d\.\d\d-py3", named)
    assert lines.index(named) < lines.index("FROM $TRITON")


def test_the_pages_name_the_images_of_the_manifests():
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    triton = re.search(r"ARG TRITON=(\S+)", (ROOT / "Dockerfile").read_text())[1]
    envoy = re.search(r"image: (envoyproxy\S+)", (FOLDER / "components/envoy/deployment.yaml").read_text())[1]
    assert f"inspect {triton} " in page
    assert f"inspect {envoy} " in page
    assert set(re.findall(r"envoyproxy/envoy:\S+", (ROOT / "docs" / "operate.md").read_text())) == {envoy}
