"""deploy/kubernetes: clusters of the stated versions take every manifest, and its parts fit each other."""

import copy
import re
import shutil
import subprocess

import jsonschema
import pytest
import yaml
from helpers import kustomize
from helpers.manifests import FOLDER, OVERLAYS, VERSIONS, built, labels_of, of_kind, ports_of, selected, validate
from helpers.places import ROOT

SERVER = {"part": "medimageparse-server"}


def key(manifest):
    return manifest["kind"], manifest["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_clusters_take_every_manifest(overlay):
    for manifest in built(overlay):
        for version in VERSIONS:
            validate(manifest, version)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_builds_the_same(overlay):
    if not shutil.which("kubectl"):
        pytest.skip("this machine has no kubectl to compare with")
    command = ["kubectl", "kustomize", FOLDER / overlay]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert sorted(yaml.safe_load_all(text), key=key) == sorted(built(overlay), key=key)


@pytest.mark.parametrize(
    ("overlay", "kind", "path"),
    [
        ("base", "Deployment", ["spec", "template", "spec"]),
        ("base", "NetworkPolicy", ["spec"]),
        ("overlays/autoscaled", "ScaledObject", ["spec"]),
        ("overlays/autoscaled", "ScaledObject", ["spec", "advanced", "horizontalPodAutoscalerConfig", "behavior"]),
        ("overlays/autoscaled", "PodMonitor", ["spec"]),
        ("kserve", "InferenceService", ["spec", "predictor"]),
        ("kserve", "InferenceService", ["spec", "predictor", "containers", 0]),
        ("kserve", "InferenceService", ["spec", "predictor", "autoScaling", "behavior"]),
    ],
)
def test_a_misspelt_field_is_found(overlay, kind, path):
    manifest = copy.deepcopy(next(iter(of_kind(overlay, kind).values())))
    place = manifest
    for part in path:
        place = place[part]
    place["replicaz"] = 2
    with pytest.raises(jsonschema.ValidationError, match="replicaz"):
        validate(manifest, VERSIONS[0])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_is_locked_up(overlay):
    pods = [m for m in built(overlay) if kustomize.pod_of(m)]
    assert pods
    for manifest in pods:
        pod = kustomize.pod_of(manifest)
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in kustomize.containers(manifest):
            locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
            assert container["securityContext"] == locked | {"capabilities": {"drop": ["ALL"]}}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_volumes_and_what_they_name_are_there(overlay):
    kinds = {"configMap": ("ConfigMap", "name"), "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName")}
    apart = overlay in ("store", "overlays/canary")  # applied beside another overlay
    for manifest in built(overlay):
        pod = kustomize.pod_of(manifest)
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        mounted = (
            {mount["name"] for c in kustomize.containers(manifest) for mount in c["volumeMounts"]} if pod else set()
        )
        assert mounted == set(volumes)
        for volume in volumes.values():
            for kind, (resource, name) in kinds.items():
                if kind in volume and not apart:
                    assert volume[kind][name] in of_kind(overlay, resource)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_store_is_mounted_for_reading_and_is_the_same_for_both(overlay):
    for manifest in selected(overlay, SERVER):
        mounts = [m for c in kustomize.containers(manifest) for m in c["volumeMounts"] if m["name"] == "store"]
        assert len(mounts) == 2
        assert mounts[0] == mounts[1]
        assert mounts[0]["readOnly"]
        assert len({container["image"] for container in kustomize.containers(manifest)}) == 1


@pytest.mark.parametrize("overlay", [o for o in OVERLAYS if o not in ("store", "overlays/canary")])
def test_services_budgets_policies_and_monitors_choose_pods_with_these_ports(overlay):
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"):
        for manifest in of_kind(overlay, kind).values():
            spec = manifest["spec"]
            chosen = spec["podSelector"] if kind == "NetworkPolicy" else spec["selector"]
            pods = selected(overlay, chosen.get("matchLabels", chosen))
            assert len(pods) == 1
            ports = ports_of(pods[0])
            asked = [p["targetPort"] for p in spec.get("ports", [])]
            asked += [p["port"] for p in spec.get("podMetricsEndpoints", [])]
            assert set(asked) <= set(ports)
            let_in = {p["port"] for rule in spec.get("ingress", []) for p in rule["ports"]}
            assert kind != "NetworkPolicy" or let_in == set(ports.values())


@pytest.mark.parametrize("overlay", [o for o in OVERLAYS if o not in ("store", "overlays/canary")])
def test_what_one_pod_asks_of_another_is_let_out_and_in(overlay):
    policies = of_kind(overlay, "NetworkPolicy").values()
    by_pod = {yaml.dump(policy["spec"]["podSelector"]): policy["spec"] for policy in policies}
    for policy in policies:
        for rule in policy["spec"]["egress"]:
            for to in rule["to"]:
                if "podSelector" in to and yaml.dump(to["podSelector"]) in by_pod:
                    [asking] = selected(overlay, policy["spec"]["podSelector"]["matchLabels"])
                    ingress = by_pod[yaml.dump(to["podSelector"])]["ingress"]
                    let_in = {p["port"] for r in ingress if lets(r, labels_of(asking)) for p in r["ports"]}
                    assert {p["port"] for p in rule["ports"]} <= let_in


def lets(rule, labels):
    froms = [peer["podSelector"]["matchLabels"] for peer in rule.get("from", []) if "podSelector" in peer]
    return "from" not in rule or any(wanted.items() <= labels.items() for wanted in froms)


def test_an_autoscaler_is_not_undone_by_a_number_of_servers():
    for overlay in ("overlays/autoscaled", "overlays/autoscaled-hpa"):
        assert "replicas" not in of_kind(overlay, "Deployment")["medimageparse"]["spec"]
    [scaled] = of_kind("overlays/autoscaled", "ScaledObject").values()
    [hpa] = of_kind("overlays/autoscaled-hpa", "HorizontalPodAutoscaler").values()
    assert scaled["spec"]["minReplicaCount"] == hpa["spec"]["minReplicas"] > 1
    assert scaled["spec"]["maxReplicaCount"] == hpa["spec"]["maxReplicas"]
    assert scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["spec"]["behavior"]


def test_one_gpu_is_never_asked_for_by_two_servers():
    [server] = of_kind("overlays/one-gpu", "Deployment").values()
    assert server["spec"]["replicas"] == 1
    assert server["spec"]["strategy"] == {"type": "Recreate"}


def test_a_slice_of_a_gpu_takes_the_place_of_a_gpu():
    server = of_kind("overlays/mig", "Deployment")["medimageparse"]
    limits = kustomize.pod_of(server)["containers"][0]["resources"]["limits"]
    assert [name for name in limits if name.startswith("nvidia.com/")] == ["nvidia.com/mig-2g.20gb"]


def test_a_canary_is_a_deployment_of_its_own_behind_the_same_names():
    [canary] = built("overlays/canary")
    stable = of_kind("base", "Deployment")["medimageparse"]
    assert canary["metadata"]["name"] != stable["metadata"]["name"]
    assert canary["spec"]["selector"] != stable["spec"]["selector"]
    assert SERVER.items() <= labels_of(canary).items()
    stores = [{m["subPath"] for m in mounts(pod) if m["name"] == "store"} for pod in (stable, canary)]
    assert stores == [{"release-1"}, {"release-2"}]


def test_the_pages_own_overlay_is_taken_and_sets_a_release(tmp_path):
    [text] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "kubernetes.md").read_text(), re.DOTALL)
    tree = shutil.copytree(FOLDER, tmp_path / "kubernetes")
    overlay = tree / "overlays" / "ours"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(text)
    manifests = kustomize.build(overlay)
    for manifest in manifests:
        validate(manifest, VERSIONS[-1])
    [server] = [m for m in manifests if key(m) == ("Deployment", "medimageparse")]
    assert {c["image"] for c in kustomize.containers(server)} == {"registry.example/medimageparse-triton@sha256:..."}
    assert kustomize.pod_of(server)["initContainers"][0]["env"][0]["value"] == "DIGEST OF THE STORE"
    assert kustomize.pod_of(server)["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L40S"}


def mounts(manifest):
    return [mount for container in kustomize.containers(manifest) for mount in container["volumeMounts"]]


def test_kserve_runs_the_same_pod():
    [service] = of_kind("kserve", "InferenceService").values()
    server = of_kind("base", "Deployment")["medimageparse"]
    pod = copy.deepcopy(kustomize.pod_of(server))
    pod["containers"][0]["name"] = "kserve-container"
    predictor = service["spec"]["predictor"]
    assert {name: predictor.get(name) for name in pod} == pod
    assert predictor["labels"].items() <= labels_of(server).items()
    [scaled] = of_kind("overlays/autoscaled", "ScaledObject").values()
    [metric] = predictor["autoScaling"]["metrics"]
    trigger = scaled["spec"]["triggers"][0]["metadata"]
    assert metric["external"]["metric"].items() >= {n: trigger[n] for n in ("serverAddress", "query")}.items()
    assert metric["external"]["target"]["averageValue"] == trigger["threshold"]
    assert (
        predictor["autoScaling"]["behavior"] == scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    )
