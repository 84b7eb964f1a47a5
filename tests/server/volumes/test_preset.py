"""A preset through the real server: over gRPC, HTTP, the stream and the gateway the same answer as its sentences."""

import json

import numpy as np
import pytest
from helpers.wrong_volumes import SEVERAL_PASSES
from medimageparse_client import Client
from medimageparse_contract.catalogue import rows_of_presets, structures

ROWS = structures("3d", preset="demo-ct")


@pytest.fixture(scope="module")
def answer(client, volume):
    return client.segment(volume, [row.prompt for row in ROWS])


def test_the_demo_knows_its_own_set(answer):
    present = [row.id for row, told in zip(ROWS, answer.report["prompts"], strict=True) if told["present"]]
    assert len(present) >= 5


@pytest.mark.parametrize("way", ["grpc", "http", "stream"])
def test_a_preset_gives_what_its_sentences_give(way, server, volume, answer):
    url, protocol = (server.http_url, "http") if way == "http" else (server.grpc_url, "grpc")
    with Client(url, protocol=protocol) as client:
        steps = []
        progress = (lambda *step: steps.append(step)) if way == "stream" else None
        result = client.segment(volume, preset="Demo-CT", progress=progress)
    assert result.prompts == answer.prompts
    assert np.array_equal(result.label_map, answer.label_map)
    assert np.array_equal(result.scores, answer.scores)
    assert [told["id"] for told in result.report["prompts"]] == [row.id for row in ROWS]
    assert len(steps) > 1 or way != "stream"


def test_several_passes_keep_what_the_first_has(client, volume):
    rows = rows_of_presets(SEVERAL_PASSES.decode() + " & demo-ct", "3d")
    first = client.segment(volume, [row.prompt for row in rows[:64]])
    result = client.segment(volume, preset=SEVERAL_PASSES.decode() + " & demo-ct")
    assert len(result.prompts) == len(rows) > 64
    assert np.array_equal(result.scores[:64], first.scores)
    assert np.array_equal(np.where(result.label_map <= 64, result.label_map, 0), first.label_map)
    assert result.label_map.max() > 64
    assert json.dumps(result.report).count('"id"') == len(rows)
