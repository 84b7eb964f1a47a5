"""`kubectl kustomize` for what deploy/kubernetes uses of it, and nothing else: what it does not know is an error.

No package of PyPI, npm or Debian 12 brings a current kustomize for Python 3.11, so a machine of CI may have none. Where
there is a kubectl, a test compares the two.
"""

import copy
import hashlib
import json

import yaml

KINDS = {"Kustomization", "Component"}
FIELDS = {"apiVersion", "kind", "resources", "components", "patches", "configMapGenerator"}
FIELDS |= {"nameSuffix", "images", "namespace"}
# how kustomize writes the digits of a hash, so that they spell nothing
LETTERS = str.maketrans("013ae", "ghkmt")


def build(folder):
    """The manifests of a kustomization, as dictionaries."""
    found = accumulate(folder.resolve(), [])
    add_hashes(found)
    for manifest in found:
        manifest.pop("_generated", None)
    return found


def documents(text):
    """What safe_load_all reads, by libyaml: ten times as fast."""
    return list(yaml.load_all(text, yaml.CSafeLoader))


def accumulate(folder, manifests):
    """Adds a kustomization's resources to the manifests and changes them as it says."""
    (kustomization,) = documents((folder / "kustomization.yaml").read_text())
    assert kustomization["kind"] in KINDS
    assert set(kustomization) <= FIELDS, f"{folder}: {set(kustomization) - FIELDS} is not known here"
    own = []
    for name in kustomization.get("resources", []):
        path = (folder / name).resolve()
        if path.is_dir():
            own += accumulate(path, [])
        else:
            assert folder in path.parents, f"kustomize reads no file outside of {folder}"
            own += documents(path.read_text())
    manifests = manifests + own
    for generator in kustomization.get("configMapGenerator", []):
        manifests = generate(folder, generator, manifests)
    for name in kustomization.get("components", []):
        manifests = accumulate((folder / name).resolve(), manifests)
    for patch in kustomization.get("patches", []):
        assert set(patch) == {"patch", "target"}
        targets = [m for m in manifests if is_target(m, patch["target"])]
        assert targets, f"{folder}: nothing is {patch['target']}"
        for manifest in targets:
            for operation in documents(patch["patch"])[0]:
                apply(manifest, **operation)
    for manifest in manifests:
        suffix = kustomization.get("nameSuffix", "")
        assert not suffix or manifest["kind"] == "Deployment", "names that others refer to are not known here"
        manifest["metadata"]["name"] += suffix
        if "namespace" in kustomization:
            manifest["metadata"]["namespace"] = kustomization["namespace"]
        for container in containers(manifest):
            for image in kustomization.get("images", []):
                if container["image"].rpartition(":")[0] == image["name"]:
                    container["image"] = renamed(**image)
    names = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    assert len(set(names)) == len(names), f"{folder}: a name is taken twice"
    return manifests


def renamed(name, newName="", newTag="", digest=""):  # noqa: N803, they are called so
    return f"{newName or name}@{digest}" if digest else f"{newName or name}:{newTag}"


def is_target(manifest, target):
    assert set(target) == {"kind", "name"}
    return (manifest["kind"], manifest["metadata"]["name"]) == (target["kind"], target["name"])


def generate(folder, generator, manifests):
    """A ConfigMap of files; with `behavior: merge` into one that is there."""
    data = {name: (folder / name).read_text() for name in generator["files"]}
    if generator.get("behavior") == "merge":
        [found] = [m for m in manifests if m.get("_generated") and m["metadata"]["name"] == generator["name"]]
        found["data"] |= data
        return manifests
    assert set(generator) == {"name", "files"}
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}
    return [*manifests, made | {"_generated": True}]


def apply(manifest, op, path, value=None):
    """One operation of JSON Patch (RFC 6902)."""
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in path.removeprefix("/").split("/"))
    place = manifest
    for part in parents:
        place = place[int(part) if isinstance(place, list) else part]
    if isinstance(place, list):
        last = len(place) if last == "-" else int(last)
    if op == "add" and isinstance(place, list):
        place.insert(last, copy.deepcopy(value))
    elif op == "add":
        place[last] = copy.deepcopy(value)
    else:
        assert op in {"remove", "replace"}
        place[last]  # noqa: B018, it must be there
        if op == "remove":
            del place[last]
        else:
            place[last] = copy.deepcopy(value)


def add_hashes(manifests):
    """A generated ConfigMap is called after its content, in its own name and in all that name it."""
    for generated in [m for m in manifests if m.get("_generated")]:
        name = generated["metadata"]["name"]
        content = {"data": generated["data"], "kind": "ConfigMap", "name": ""}
        text = json.dumps(content, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        for letter in "&<>":
            text = text.replace(letter, f"\\u{ord(letter):04x}")
        full = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10].translate(LETTERS)}"
        generated["metadata"]["name"] = full
        for manifest in manifests:
            for volume in pod_of(manifest).get("volumes", []):
                if volume.get("configMap", {}).get("name") == name:
                    volume["configMap"]["name"] = full


def pod_of(manifest):
    """The pod's part of a manifest; empty where there is none."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "Pod":
        return spec
    return spec.get("predictor") or spec.get("template", {}).get("spec", {})


def containers(manifest):
    return [c for kind in ("initContainers", "containers") for c in pod_of(manifest).get(kind, [])]
