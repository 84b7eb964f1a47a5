"""deploy/kubernetes/cohort: the Job's command is one that there is, and its numbers fit each other."""

import pytest
import yaml
from helpers.manifests import labels_of, of_kind, ports_of, selected
from helpers.places import ROOT
from medimageparse_client.cli import console
from medimageparse_client.cli.commands import build_parser
from medimageparse_client.cohort.shards import shard_of

FOLDER = ROOT / "deploy" / "kubernetes" / "cohort"
JOB = yaml.safe_load((FOLDER / "job.yaml").read_text())["spec"]
POD = JOB["template"]["spec"]
[CONTAINER] = POD["containers"]


@pytest.fixture
def args():
    program, *words = [*CONTAINER["command"], *CONTAINER["args"]]
    assert program == "medimageparse"
    return build_parser().parse_args(words)


def test_every_pod_has_a_shard_and_every_shard_a_pod(args):
    assert JOB["completionMode"] == "Indexed"
    assert args.shards == JOB["completions"] >= JOB["parallelism"]
    indexes = range(JOB["completions"])
    shards = [shard_of(args.shard, args.shards, {"JOB_COMPLETION_INDEX": str(index)}) for index in indexes]
    assert [(shard.index, shard.count) for shard in shards] == [(index, len(indexes)) for index in indexes]


def test_what_comes_again_is_what_a_second_run_mends():
    evicted, failed = JOB["podFailurePolicy"]["rules"]
    assert evicted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    codes = dict((kind.__name__, code) for kind, code in console.EXIT_CODES)
    assert set(failed["onExitCodes"]["values"]) == {console.SOME_FAILED, 2, codes["OSError"], codes["InvalidRequest"]}
    assert codes["ServerUnavailable"] not in failed["onExitCodes"]["values"]
    assert failed["onExitCodes"]["containerName"] == CONTAINER["name"]
    assert JOB["backoffLimitPerIndex"] > 0  # without it Kubernetes refuses FailIndex
    assert POD["restartPolicy"] == "Never"  # nor takes it a podFailurePolicy


def test_it_reads_and_writes_where_volumes_are_mounted(args):
    mounts = {mount["mountPath"]: mount for mount in CONTAINER["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in POD["volumes"]}
    assert mounts[str(args.source.parent)]["readOnly"]
    assert "readOnly" not in mounts[str(args.output)]
    assert "/tmp" in mounts


def test_it_may_do_nothing_else():
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["runAsUser"] > 0
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False


@pytest.mark.parametrize("overlay", ["kserve", "overlays/autoscaled", "overlays/mig"])
def test_whom_it_asks_lets_it_in(overlay, args):
    [(host, port)] = [url.split(":") for url in args.url]
    service = of_kind(overlay, "Service")[host]
    [target] = [told["targetPort"] for told in service["spec"]["ports"] if told["port"] == int(port)]
    labels = JOB["template"]["metadata"]["labels"]
    assert (makers := selected(overlay, service["spec"]["selector"]))
    for maker in makers:
        number = ports_of(maker)[target]
        policies = [
            policy["spec"]
            for policy in of_kind(overlay, "NetworkPolicy").values()
            if policy["spec"]["podSelector"]["matchLabels"].items() <= labels_of(maker).items()
        ]
        rules = [rule for policy in policies for rule in policy["ingress"] if {"port": number} in rule["ports"]]
        allowed = [
            peer["podSelector"]["matchLabels"] for rule in rules for peer in rule["from"] if "podSelector" in peer
        ]
        assert any(wanted.items() <= labels.items() for wanted in allowed)
