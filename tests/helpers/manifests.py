"""The manifests of deploy/kubernetes, and whether Kubernetes, KServe, KEDA and the Prometheus operator take them."""

import json
from functools import cache, lru_cache

import jsonschema
import kubernetes_validate
import yaml
from helpers import kustomize
from helpers.places import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.31", "1.34", "1.37")  # of Kubernetes, as docs/kubernetes.md says
CUSTOM = yaml.safe_load((ROOT / "tests" / "data" / "crds.yaml").read_text())
OVERLAYS = sorted(
    str(path.parent.relative_to(FOLDER))
    for path in FOLDER.rglob("kustomization.yaml")
    if "components" not in path.parts and path.parent.name not in ("server", "shared")
)
# what Kubernetes' schemas judge of a KServe predictor, in a pod
NOT_OF_A_POD = {"minReplicas", "maxReplicas", "timeout", "labels", "deploymentStrategy", "autoScaling"}


@lru_cache
def built(overlay):
    return kustomize.build(FOLDER / overlay)


def of_kind(overlay, kind):
    return {m["metadata"]["name"]: m for m in built(overlay) if m["kind"] == kind}


def validate(manifest, version):
    """jsonschema.ValidationError if the cluster would refuse it, or would drop a part of it as unknown."""
    validate_text(json.dumps(manifest), version)


@cache  # overlays have most manifests in common
def validate_text(text, version):
    manifest = json.loads(text)
    if manifest["kind"] not in CUSTOM:
        kubernetes_validate.validate(manifest, version, strict=True)
        return
    custom = CUSTOM[manifest["kind"]]
    jsonschema.validate(manifest["apiVersion"], {"const": custom["apiVersion"]})
    annotations = {"additionalProperties": False, "properties": custom.get("annotations", {})}
    jsonschema.validate(manifest["metadata"].get("annotations", {}), annotations)
    jsonschema.validate(manifest["spec"], custom["spec"])
    for part in parts_of_kubernetes(manifest):
        kubernetes_validate.validate(part, version, strict=True)


def parts_of_kubernetes(manifest):
    """What a custom resource says in Kubernetes' own words, as resources of Kubernetes."""
    spec, metadata = manifest["spec"], {"name": "part"}
    if manifest["kind"] == "ScaledObject":
        return [scaler(spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"])]
    if manifest["kind"] == "InferenceService":
        predictor = spec["predictor"]
        pod = {name: value for name, value in predictor.items() if name not in NOT_OF_A_POD}
        template = {"metadata": {"labels": predictor["labels"]}, "spec": pod}
        deployment = {
            "selector": {"matchLabels": predictor["labels"]},
            "strategy": predictor["deploymentStrategy"],
            "template": template,
        }
        return [
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
            scaler(predictor["autoScaling"]["behavior"]),
        ]
    return []


def scaler(behavior):
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "part"}
    spec = {"scaleTargetRef": target, "maxReplicas": 2, "behavior": behavior}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "part"},
        "spec": spec,
    }


def labels_of(manifest):
    """Of its pods."""
    if manifest["kind"] == "Deployment":
        return manifest["spec"]["template"]["metadata"]["labels"]
    return manifest["spec"]["predictor"]["labels"] if manifest["kind"] == "InferenceService" else {}


def selected(overlay, labels):
    """The makers of pods that have these labels."""
    return [m for m in built(overlay) if labels_of(m) and labels.items() <= labels_of(m).items()]


def container(manifest, name):
    [found] = [c for c in kustomize.containers(manifest) if c["name"] == name]
    return found


def ports_of(manifest):
    return {port["name"]: port["containerPort"] for c in kustomize.containers(manifest) for port in c.get("ports", [])}
