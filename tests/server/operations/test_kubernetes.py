"""The container of deploy/kubernetes as it is started there, as far as a machine without a cluster can: its command,
its flags, code and store apart, a read-only root and no capabilities. What the manifests ask for is answered.
"""

import re
import subprocess
import sys

import nibabel as nib
import pytest
from helpers.manifests import container, of_kind
from helpers.places import ROOT
from helpers.running_server import PATIENCE_S, probe, serving
from medimageparse_client import Client
from medimageparse_demo.repository import WEIGHTS
from medimageparse_serving.launch.addresses import open_local
from medimageparse_serving.launch.model_store import digest

SERVER = of_kind("base", "Deployment")["medimageparse"]
# as the pod: nothing can be written but /tmp and /dev/shm
LOCKED = """
mount --make-rprivate / && mount --bind / / && cd / && mount -o remount,bind,ro / || exit 99
mount -t tmpfs tmpfs /tmp || exit 99
for folder in /opt /var /root; do ! touch $folder/written 2>/dev/null || exit 98; done
cd {code} && exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
CHANGED = {  # what a machine without GPU and cluster has in its place
    "--runtime=tensorrt": "--runtime=cpu",
    "--store=/store": f"--store={WEIGHTS}",
    "--host=0.0.0.0": "--host=127.0.0.1",
    "--metrics-host=0.0.0.0": "--metrics-host=127.0.0.1",
    "--digest=$(STORE_DIGEST)": f"--digest={digest(WEIGHTS)}",
}


def locked(name, *flags):
    """The command of one of the pod's containers, with other places."""
    found = container(SERVER, name)
    assert set(CHANGED) & set(found["args"])
    words = [CHANGED.get(word, word) for word in found["args"]]
    script = ["unshare", "--mount", "bash", "-c", LOCKED.format(code=ROOT), "locked"]
    return [*script, sys.executable, *found["command"][1:], *words, *flags]


@pytest.fixture(scope="module", autouse=True)
def _can_be_locked():
    command = ["unshare", "--mount", "bash", "-c", LOCKED.format(code=ROOT), "locked", "true"]
    if subprocess.run(command, capture_output=True, check=False, timeout=60).returncode:
        pytest.skip("this machine does not let a test make its root read-only")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics", "probe")]
    with serving(tmp_path_factory.mktemp("pod") / "log", command=locked("server", *ports)) as service:
        yield service


def test_the_init_container_takes_the_store_that_the_release_names():
    found = subprocess.run(locked("verify-store"), capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert found.returncode == 0, found.stderr
    assert digest(WEIGHTS) in found.stdout
    other = [word.replace(digest(WEIGHTS), "0" * 64) for word in locked("verify-store")]
    assert subprocess.run(other, capture_output=True, check=False, timeout=PATIENCE_S).returncode == 1


def test_it_answers_with_nothing_to_write_to(service, volume, tmp_path):
    nib.save(volume, tmp_path / "volume.nii.gz")
    with Client(service.grpc) as client:
        assert client.segment(tmp_path / "volume.nii.gz", ["liver"]).label_map.any()


def test_probes_are_answered(service):
    spec = container(SERVER, "server")
    for name in ("startup", "readiness", "liveness"):
        assert probe(service, spec[f"{name}Probe"]["httpGet"]["path"]) == 200


def test_monitors_and_autoscalers_find_their_metrics(service):
    [monitor] = of_kind("overlays/autoscaled", "PodMonitor").values()
    addresses = {"metrics": service.metrics.removesuffix("/metrics"), "probes": service.probes}
    texts = {}
    for end in monitor["spec"]["podMetricsEndpoints"]:
        with open_local(addresses[end["port"]] + end["path"], timeout=30) as answer:
            texts[end["port"]] = answer.read().decode()
    assert "medimageparse_ready 1" in texts["probes"]
    [scaled] = of_kind("overlays/autoscaled", "ScaledObject").values()
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    metric, models = re.search(r'(nv_\w+)\{model=~"(.*?)"\}', query).groups()
    found = re.findall(rf'^{metric}\{{model="(\w+)",.*\}} \d+$', texts["metrics"], re.MULTILINE)
    assert {model for model in found if re.fullmatch(models, model)} == {"medimageparse_3d", "medimageparse_3d_stream"}
