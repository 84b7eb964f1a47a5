"""Why a prompt is absent or halved: the report says to which prompt it lost, and on how many slices."""

import numpy as np
import pytest

# two names of one organ, which compete for it
SYNONYMS = [("liver", "hepatic parenchyma"), ("aorta", "aortic lumen"), ("spleen", "segment the spleen")]


@pytest.mark.parametrize("prompts", SYNONYMS, ids=str)
def test_of_two_names_of_one_organ_each_tells_what_it_lost(client, volume, prompts):
    result = client.segment(volume, prompts)
    entries = result.report["prompts"]
    shown = (result.label_map[None] == np.array([1, 2])[:, None, None, None]).any((1, 2)).sum(1)
    scored = (result.scores > 0.5).sum(1)
    lost = 0
    for entry, n_shown, n_scored, other in zip(entries, shown, scored, (2, 1), strict=True):
        assert (entry["slices_shown"], entry["slices_scored"]) == (n_shown, n_scored)
        assert {loss["label"] for loss in entry["lost_to"]} <= {other}
        n_lost = sum(loss["slices"] for loss in entry["lost_to"])
        assert n_shown <= n_scored - n_lost
        assert entry["why_absent"] == (None if entry["present"] else "overlap")
        lost += n_lost
    assert lost > 0
    told = [warning for warning in result.report["warnings"] if "without synonyms" in warning]
    assert len(told) == sum(len(entry["lost_to"]) for entry in entries)
    assert all(prompt not in warning for warning in told for prompt in prompts)


def test_prompts_for_different_organs_lose_nothing(client, volume):
    result = client.segment(volume, ["liver", "spleen", "stomach", "aorta", "pancreas"])
    assert all(entry["lost_to"] == [] for entry in result.report["prompts"])
    assert result.report["warnings"] == []
    absent = result.report["prompts"][-1]
    assert (absent["present"], absent["why_absent"], absent["slices_scored"]) == (False, "low_score", 0)


def test_one_prompt_loses_to_nobody(client, volume):
    [entry] = client.segment(volume, ["liver"]).report["prompts"]
    assert (entry["lost_to"], entry["why_absent"]) == ([], None)
    assert entry["slices_shown"] == entry["slices_scored"] > 0
