"""The simulation of benchmarks/capacity.py against queueing theory, and what holds whatever the numbers are."""

import csv
import math
import re
import shutil
from dataclasses import replace

import capacity
import numpy as np
import pytest
from capacity import COPIES, OUTSIDE, PLACES, STAGES, Estimate, Numbers
from medimageparse_demo import MODEL_REPOSITORY
from recording import append_row
from simulated_server import IMAGE, MASKS, NETWORKS, PIPELINE, STEPS, TEXT, Server, Setting, Traffic, simulate

FOREVER, ONE_WINDOW = 1e12, 10**9
MEAN_SLICES = 1000  # so many that geometric sizes are exponential service times
LOAD = 0.5
SERVED = Setting(
    volumes_at_once=2,
    queue_size=16,
    queue_timeout_s=600.0,
    window_size=4,
    windows_in_flight=2,
    instances=dict.fromkeys((*STEPS, *NETWORKS), 1),
    canary_every_s=0.0,
)
TIMES = {place: 0.01 * (k + 1) for k, place in enumerate(PLACES)}
PLAIN = {place: 1 / MEAN_SLICES if place == IMAGE else 0.0 for place in PLACES}  # a second in one network


def exponential(rng, n):
    return rng.geometric(1 / MEAN_SLICES, n)


def constant(rng, n):
    return [MEAN_SLICES] * n


def between_20_and_60(rng, n):
    return rng.integers(20, 61, n)


def plain(at_once, **other):
    """One call a volume, no limit to the queue."""
    changed = {"volumes_at_once": at_once, "queue_size": ONE_WINDOW, "queue_timeout_s": FOREVER}
    return replace(SERVED, **(changed | {"window_size": ONE_WINDOW} | other))


def run(setting, times=TIMES, per_s=0.05, draw=between_20_and_60, n=300, seed=0, **traffic):
    offered = Traffic(3600 * per_s, draw, n, **traffic)
    return simulate(setting, times, offered, np.random.default_rng(seed))


def mean_s(found):
    """Mean seconds from arrival to answer, after the warm-up."""
    counted = found.requests[len(found.requests) // 5 :]
    return np.mean([request.ended - request.arrived for request in counted if not request.is_refused])


def refused_share(found):
    return np.mean([request.is_refused for request in found.requests])


def n_served(found):
    return sum(not request.is_refused for request in found.requests)


def erlang_c(servers, load):
    """Probability that an arrival waits; load in servers."""
    waits = load**servers / math.factorial(servers) * servers / (servers - load)
    return waits / (waits + sum(load**k / math.factorial(k) for k in range(servers)))


def blocked(servers, places, load):
    """Probability that M/M/servers with so many places in all is full."""
    weights = [load**k / (math.factorial(min(k, servers)) * servers ** max(0, k - servers)) for k in range(places + 1)]
    return weights[-1] / sum(weights)


def test_one_server_with_exponential_times_is_m_m_1():
    found = run(plain(1), PLAIN, LOAD, exponential, n=30_000)

    assert mean_s(found) == pytest.approx(1 / (1 - LOAD), rel=0.03)


def test_one_server_with_constant_times_is_m_d_1():
    found = run(plain(1), PLAIN, LOAD, constant, n=30_000)

    assert mean_s(found) == pytest.approx(1 + LOAD / (2 * (1 - LOAD)), rel=0.02)


@pytest.mark.parametrize(("gpus", "instances"), [(2, 1), (3, 1), (2, 2)])
def test_several_gpus_are_m_m_c(gpus, instances):
    """More instances on a GPU change nothing while a call finds another GPU free."""
    on_each = {**SERVED.instances, IMAGE: instances}

    found = run(plain(gpus, gpus=gpus, instances=on_each), PLAIN, LOAD * gpus, exponential, n=30_000)

    assert mean_s(found) == pytest.approx(1 + erlang_c(gpus, LOAD * gpus) / (gpus - LOAD * gpus), rel=0.03)


@pytest.mark.parametrize("draw", [constant, exponential])
def test_a_shared_device_is_processor_sharing_whatever_the_sizes(draw):
    """M/G/1-PS: the mean depends on the load alone."""
    many = {**SERVED.instances, IMAGE: 40}

    found = run(plain(40, instances=many), PLAIN, LOAD, draw, n=20_000)

    assert mean_s(found) == pytest.approx(1 / (1 - LOAD), rel=0.04)


@pytest.mark.parametrize(("servers", "queue_size"), [(1, 0), (1, 3), (2, 3)])
def test_a_bounded_queue_refuses_as_m_m_c_k(servers, queue_size):
    load = 1.5 * servers

    found = run(plain(servers, gpus=servers, queue_size=queue_size), PLAIN, load, exponential, n=30_000)

    assert refused_share(found) == pytest.approx(blocked(servers, servers + queue_size, load), rel=0.03)


def test_machines_chosen_at_random_are_each_a_queue_of_their_own():
    found = run(plain(1), PLAIN, 2 * LOAD, exponential, n=30_000, n_machines=2, balancer="random")

    assert mean_s(found) == pytest.approx(1 / (1 - LOAD), rel=0.03)


def test_the_least_loaded_machine_is_between_random_choice_and_one_common_queue():
    least, random = (
        mean_s(run(plain(1), PLAIN, 1.6, exponential, n=10_000, n_machines=2, balancer=name))
        for name in ("least", "random")
    )
    common = mean_s(run(plain(2, gpus=2), PLAIN, 1.6, exponential, n=10_000))

    assert common < least < random


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_volume_alone_takes_the_sum_of_its_stages(gpus):
    one = replace(SERVED, windows_in_flight=1, gpus=gpus)

    found = run(one, draw=lambda rng, n: [37] * n, n=1)

    expected = capacity.seconds_of(TIMES, (*STEPS, *NETWORKS), 37)
    assert found.requests[0].ended - found.requests[0].arrived == pytest.approx(expected)


def test_a_second_window_in_flight_hides_work_beside_a_gpu_and_none_on_the_cores():
    alone = [
        run(replace(SERVED, gpus=gpus, windows_in_flight=windows), n=1).requests[0]
        for gpus, windows in ((0, 1), (0, 2), (1, 1), (1, 2))
    ]

    cores_1, cores_2, gpu_1, gpu_2 = (request.ended - request.arrived for request in alone)
    assert cores_2 == pytest.approx(cores_1)
    assert gpu_2 < 0.95 * gpu_1


@pytest.mark.parametrize("gpus", [0, 1, 3])
@pytest.mark.parametrize("per_s", [0.05, 2.0])
def test_work_is_conserved_and_every_request_ends_once(gpus, per_s):
    setting = replace(SERVED, gpus=gpus)
    models = NETWORKS if gpus else (*STEPS, *NETWORKS)

    found = run(setting, per_s=per_s, n_machines=2)

    served = [request for request in found.requests if not request.is_refused]
    needed = sum(capacity.seconds_of(TIMES, models, request.n_slices) for request in served)
    assert sum(device.busy_s for server in found.servers for device in server.devices) == pytest.approx(needed)
    assert all(request.has_ended for request in found.requests)
    assert (len(served) < len(found.requests)) == (per_s == 2.0)
    assert not any(server.outstanding() or device.left_s for server in found.servers for device in server.devices)


def test_never_more_volumes_and_windows_than_configured(monkeypatch):
    most = {"under way": 0, "queue": 0, "windows": 0}
    take, window = Server.take, Server._segment_window
    n_windows = 0

    def taken(server, request):
        take(server, request)
        most["under way"] = max(most["under way"], len(server.under_way))
        most["queue"] = max(most["queue"], len(server.queue))

    def watched(server, n_slices):
        nonlocal n_windows
        n_windows += 1
        most["windows"] = max(most["windows"], n_windows)
        yield from window(server, n_slices)
        n_windows -= 1

    monkeypatch.setattr(Server, "take", taken)
    monkeypatch.setattr(Server, "_segment_window", watched)
    run(SERVED, per_s=0.5)

    assert most == {"under way": 2, "queue": 16, "windows": 2 * 2}


def test_who_waits_too_long_is_refused_at_that_moment():
    found = run(replace(SERVED, queue_timeout_s=20.0), per_s=0.5)

    waited = [request.ended - request.arrived for request in found.requests if request.is_refused]
    assert {round(seconds, 6) for seconds in waited} == {0.0, 20.0}  # a full queue, or patience
    fastest_s = sum(TIMES[model] * 20 for model in (IMAGE, MASKS))
    slowest_s = 20.0 + 2 * sum(TIMES.values()) * 60
    assert all(fastest_s < r.ended - r.arrived < slowest_s for r in found.requests if not r.is_refused)


@pytest.mark.parametrize("per_s", [0.05, 0.1, 0.3])
def test_another_machine_or_gpu_never_lowers_what_is_served(per_s):
    by_machines = [n_served(run(SERVED, per_s=per_s, n_machines=n)) for n in (1, 2, 3)]
    by_gpus = [n_served(run(replace(SERVED, gpus=n), per_s=per_s)) for n in (1, 2, 3)]

    assert by_machines == sorted(by_machines)
    assert by_gpus == sorted(by_gpus)


def test_more_gpus_than_windows_in_the_networks_stand_idle():
    four, eight = (run(replace(SERVED, gpus=n, canary_every_s=0), per_s=1.0) for n in (4, 8))

    assert n_served(eight) == n_served(four)


def test_a_run_repeats_and_another_seed_differs():
    ends = [[request.ended for request in run(SERVED, seed=seed).requests] for seed in (1, 1, 2)]

    assert ends[0] == ends[1] != ends[2]


def test_canaries_take_a_twentieth_at_most():
    without, watched = (run(replace(SERVED, canary_every_s=every_s), n=200, per_s=0.02) for every_s in (0.0, 5.0))

    share = (watched.busy_s - without.busy_s) / (without.watched[1] - without.watched[0])
    assert 0.02 < share < 1 / 20


def test_latency_and_rates_are_of_the_watched_time():
    traffic = Traffic(3600 * 0.02, between_20_and_60, 400)

    found = capacity.estimate(SERVED, TIMES, traffic, n_runs=8, seed=0)

    work_s, mean, half = capacity.seconds_of(TIMES, (*STEPS, *NETWORKS), 40), found.mean, found.half
    assert found.offered_per_h == 72
    assert abs(mean.served_per_h - 72) < 3 * half.served_per_h < 12
    assert mean.utilisation == pytest.approx(0.02 * work_s, rel=0.05)
    assert work_s / 2 < mean.p50_s < mean.p95_s
    assert mean.refused_share == 0


def test_an_overloaded_server_serves_what_it_can():
    traffic = Traffic(2 * 3600, constant, 400)

    found = capacity.estimate(plain(1), PLAIN | {OUTSIDE: 0.0}, traffic, n_runs=2, seed=0)

    assert found.mean.served_per_h == pytest.approx(3600, rel=0.02)
    assert found.mean.utilisation == pytest.approx(1)


@pytest.mark.parametrize(("limit", "expected"), [(37.3, 37.3), (200, 100), (0.1, None)])
def test_the_highest_traffic_that_fits_is_found(limit, expected):
    nothing = Numbers(0, 0, 0, 0, 0)

    found = capacity.highest(lambda rate: Estimate(rate, nothing, nothing), lambda e: e.offered_per_h <= limit, 100)

    assert (found and found.offered_per_h) == (expected and pytest.approx(expected, rel=0.03))
    assert found is None or found.offered_per_h <= limit


def test_the_setting_is_read_from_the_configurations(tmp_path):
    for model in (*STEPS, *NETWORKS):
        shutil.copytree(MODEL_REPOSITORY / model, tmp_path / model, ignore=lambda folder, names: {"1"} & set(names))
    pipeline = tmp_path / PIPELINE / "config.pbtxt"
    text = re.sub(r"max_queue_size: \d+", "max_queue_size: 7", pipeline.read_text())
    text = re.sub(r"default_timeout_microseconds: \d+", "default_timeout_microseconds: 2500000", text)
    text = re.sub(r"instance_group \[ \{ count: \d+", "instance_group [ { count: 3", text)
    text = re.sub(r'(key: "windows_in_flight" value \{ string_value: )"\d+"', r'\1"5"', text)
    pipeline.write_text(re.sub(r'(key: "window_size" value \{ string_value: )"\d+"', r'\1"6"', text))
    cpu = tmp_path / IMAGE / "configs" / "cpu.pbtxt"
    cpu.write_text(re.sub(r"count: \d+", "count: 4", cpu.read_text()))

    served, on_gpus = (
        capacity.read_setting(tmp_path, runtime, gpus) for runtime, gpus in (("cpu", 0), ("tensorrt", 2))
    )

    assert (served.volumes_at_once, served.queue_size, served.queue_timeout_s) == (3, 7, 2.5)
    assert (served.window_size, served.windows_in_flight, served.gpus) == (6, 5, 0)
    assert (served.instances[IMAGE], on_gpus.instances[IMAGE], on_gpus.gpus) == (4, 1, 2)


@pytest.fixture
def stages(tmp_path):
    """A file of stages.py: an older run, then one with two sizes, the larger not the last."""
    path = tmp_path / "stages.csv"

    def add(commit, slices, factor, **changed):
        ms = dict.fromkeys(STAGES, 10.0) | {"image encoder": 50.0, "merging": -1.0, COPIES: 9.0}
        for stage, value in (ms | {"waiting in queues": 1000.0}).items():
            conditions = {"date": "2026-01-01", "commit": commit, "cpu": "a CPU", "cores": 2, "variant": "TINY"}
            sizes = {"slices": slices, "prompts": 3, "window_size": 4, "windows_in_flight": 1, "protocol": "grpc"}
            row = conditions | sizes | {"runtime": "cpu", "precision": "fp32"} | changed
            append_row(path, row | {"stage": stage, "ms": value * factor})

    add("old", 100, 7)
    add("new", 20, 2)
    add("new", 10, 1)
    add("new", 40, 1, windows_in_flight=2)
    add("new", 40, 1, protocol="http")
    add("new", 40, 1, runtime="cpu-bf16")
    return path


def test_stages_are_those_of_the_last_run_per_slice_or_volume(stages):
    times, row = capacity.read_stages(stages, "cpu", "grpc", 3)

    copied = 1 + 9 / 69  # text encoder, image encoder, mask decoder with merging: 10 + 50 + 9
    assert times["decode_volume"] == pytest.approx(0.020 / 20)
    assert times["tokenize_prompts"] == pytest.approx(0.020)
    assert times[PIPELINE] == pytest.approx(0.040 / 20)
    assert times[TEXT] == pytest.approx(0.020 * copied)
    assert times[IMAGE] == pytest.approx(0.100 * copied / 20)
    assert times[MASKS] == pytest.approx(0.018 * copied / 20)
    assert (row["commit"], row["slices"]) == ("new", "20")
    with pytest.raises(ValueError, match="no rows of cpu, 4 prompts"):
        capacity.read_stages(stages, "cpu", "grpc", 4)


def rows_of(folder, *arguments):
    results = folder / "capacity.csv"
    small = ["--results", str(results), "--volumes", "20", "--runs", "2", "--slices", "5-8", "12"]
    capacity.main([*small, *arguments])
    with results.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_script_writes_a_sweep_and_the_highest_traffic(stages, tmp_path, capsys):
    rows = rows_of(tmp_path, "--stages", str(stages), "--prompts", "3", "--rates", "100", "200")

    assert [(row["machines"], row["kind"]) for row in rows] == [
        (machines, kind) for machines in "12" for kind in ("sweep", "sweep", "highest")
    ]
    assert [row["offered_per_h"] for row in rows[:2]] == ["100.0", "200.0"]
    assert all(row["measured"].endswith("commit new, 2026-01-01") and row["assumed_ms"] == "" for row in rows)
    assert {(row["variant"], row["slices"], row["queue_size"]) for row in rows} == {("TINY", "5-8 12-12", "16")}
    assert float(rows[5]["offered_per_h"]) > float(rows[2]["offered_per_h"]) > 0
    printed = capsys.readouterr().out
    assert "| 1 without GPU |" in printed
    assert "ASSUMED" not in printed


def test_what_is_assumed_is_called_so(tmp_path, capsys):
    (row, highest) = rows_of(
        tmp_path, "--gpus", "2", "--machines", "1", "--rates", "100", "--assume", *(f"{place}=1" for place in PLACES)
    )

    assert (row["measured"], row["gpus"]) == ("", "2")
    assert all(f"{place}=1" in highest["assumed_ms"] for place in PLACES)
    assert "ASSUMED" in capsys.readouterr().out


def test_a_target_that_cannot_be_met_is_said(tmp_path, capsys):
    *_, highest = rows_of(
        tmp_path, "--machines", "1", "--rates", "1", "--target-s", "0.001", "--assume", *(f"{p}=1" for p in PLACES)
    )

    assert (highest["offered_per_h"], highest["p95_s"]) == ("", "")
    assert "| 1 without GPU | none |" in capsys.readouterr().out


def test_times_of_a_cpu_are_not_taken_for_a_gpus(stages, tmp_path):
    with pytest.raises(ValueError, match="were measured on a CPU"):
        rows_of(tmp_path, "--stages", str(stages), "--prompts", "3", "--gpus", "1")


def test_a_window_size_that_was_not_measured_is_refused(stages, tmp_path):
    stages.write_text(stages.read_text().replace(",3,4,1,grpc", ",3,8,1,grpc"))

    with pytest.raises(ValueError, match="windows of 8"):
        rows_of(tmp_path, "--stages", str(stages), "--prompts", "3")
