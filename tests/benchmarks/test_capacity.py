"""The simulation of benchmarks/capacity.py against queueing theory, and what holds whatever the numbers are."""

import csv
import math
import re
import shutil
from dataclasses import replace

import capacity
import numpy as np
import pytest
from capacity import NETWORKS, ONCE, STEPS, Setting, Simulation
from medimageparse_demo import MODEL_REPOSITORY
from recording import append_row

MEAN_SLICES = 1000  # so many that geometric sizes are exponential service times
LOAD = 0.5
TIMES = {"once_s": 0.05, "steps_s": 0.01, "networks_s": 0.03}
SERVED = Setting(2, queue_size=16, queue_timeout_s=600, window_size=4, windows_in_flight=2, gpus=1, **TIMES)
PLAIN = {"once_s": 0.0, "steps_s": 0.0, "networks_s": 1 / MEAN_SLICES}  # a second in the networks


def exponential(n):
    return np.random.default_rng(7).geometric(1 / MEAN_SLICES, n)


def constant(n):
    return [MEAN_SLICES] * n


def between_20_and_60(n):
    return np.random.default_rng(7).integers(20, 61, n)


def plain(servers, **other):
    """One call a volume, no limit to the queue."""
    changed = {"queue_size": 10**9, "queue_timeout_s": 1e12, "window_size": 10**9, "gpus": servers} | PLAIN
    return replace(SERVED, volumes_at_once=servers, **(changed | other))


def mean_s(setting, per_s, draw, n=6000):
    return np.mean(Simulation(setting).run(per_s, draw(n)).latencies)


def erlang_c(servers, load):
    """Probability that an arrival waits; load in servers."""
    waits = load**servers / math.factorial(servers) * servers / (servers - load)
    return waits / (waits + sum(load**k / math.factorial(k) for k in range(servers)))


def blocked(servers, places, load):
    """Probability that M/M/servers with so many places in all is full."""
    weights = [load**k / (math.factorial(min(k, servers)) * servers ** max(0, k - servers)) for k in range(places + 1)]
    return weights[-1] / sum(weights)


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_several_gpus_are_m_m_c(servers):
    expected = 1 + erlang_c(servers, LOAD * servers) / (servers - LOAD * servers)

    assert mean_s(plain(servers), LOAD * servers, exponential) == pytest.approx(expected, rel=0.05)


def test_one_server_with_constant_times_is_m_d_1():
    assert mean_s(plain(1), LOAD, constant) == pytest.approx(1 + LOAD / (2 * (1 - LOAD)), rel=0.03)


@pytest.mark.parametrize(("servers", "queue_size"), [(1, 0), (1, 3), (2, 3)])
def test_a_bounded_queue_refuses_as_m_m_c_k(servers, queue_size):
    load, n = 1.5 * servers, 6000

    run = Simulation(plain(servers, queue_size=queue_size)).run(load, exponential(n))

    assert run.n_refused + len(run.latencies) == n
    share = run.n_refused / (run.n_refused + len(run.latencies))
    assert share == pytest.approx(blocked(servers, servers + queue_size, load), rel=0.05)


def test_the_least_loaded_of_two_machines_is_worse_than_one_queue_and_better_than_two():
    common, apart = mean_s(plain(2), 1.6, exponential), 1 / (1 - 0.8)

    assert common < mean_s(plain(1, machines=2), 1.6, exponential) < apart


@pytest.mark.parametrize(("gpus", "windows"), [(0, 1), (0, 2), (1, 1), (1, 2)])
def test_a_volume_alone_takes_the_sum_of_its_stages(gpus, windows):
    one = replace(SERVED, windows_in_flight=windows, gpus=gpus)

    run = Simulation(one).run(1e-4, [37] * 50)  # each long after the one before

    assert run.latencies == pytest.approx([0.05 + 37 * (0.01 + 0.03)] * 50)


def test_never_more_volumes_and_windows_than_configured_and_work_is_conserved(monkeypatch):
    most = {"volumes": 0, "waiting": 0, "windows": 0}
    compute = Simulation.compute

    def watched(self, machine, seconds):
        most["volumes"] = max(most["volumes"], machine.count)
        most["waiting"] = max(most["waiting"], len(machine.queue))
        most["windows"] = max(most["windows"], machine.devices.count + len(machine.devices.queue) + 1)
        yield from compute(self, machine, seconds)

    monkeypatch.setattr(Simulation, "compute", watched)
    run = Simulation(SERVED).run(5.0, [40] * 300)

    assert most == {"volumes": 2, "waiting": 16, "windows": 2 * 2}
    assert 0 < run.n_refused < 300
    n_computed = run.busy_s / (40 * TIMES["networks_s"])
    assert n_computed == pytest.approx(round(n_computed))
    assert len(run.latencies) <= round(n_computed) <= 300 - run.n_refused


def test_who_waits_too_long_is_refused():
    patient, impatient = (
        Simulation(replace(SERVED, queue_timeout_s=s)).run(1.0, between_20_and_60(300)) for s in (600.0, 2.0)
    )

    assert impatient.n_refused > patient.n_refused
    assert max(impatient.latencies) < 2.0 + 2 * (0.05 + 60 * 0.04) < max(patient.latencies)


def test_another_machine_or_gpu_never_lowers_what_is_served():
    for name in ("machines", "gpus"):
        settings = [replace(SERVED, **{name: n}) for n in (1, 2, 3)]
        served = [len(Simulation(setting).run(2.0, between_20_and_60(400)).latencies) for setting in settings]
        assert served == sorted(served)


def test_the_autoscaler_adds_machines_while_volumes_wait_and_takes_them_away_afterwards():
    steady = replace(SERVED, start_s=60.0)
    scaled = replace(steady, at_most=4)

    few, many = (Simulation(setting).run(1.5, between_20_and_60(1000)) for setting in (steady, scaled))
    calm = Simulation(scaled).run(0.05, between_20_and_60(300))

    assert many.n_refused < few.n_refused / 4
    assert 1 < np.mean(many.n_machines) <= 4
    assert set(calm.n_machines) == {1}


def test_a_run_repeats_and_another_seed_differs():
    first, again, other = (Simulation(SERVED).run(0.3, between_20_and_60(100), seed) for seed in (1, 1, 2))

    assert first.latencies == again.latencies != other.latencies


def test_the_setting_is_read_from_the_configuration(tmp_path):
    folder = tmp_path / "medimageparse_3d"
    shutil.copytree(MODEL_REPOSITORY / folder.name, folder, ignore=lambda _, names: {"1"} & set(names))
    pipeline = folder / "config.pbtxt"
    text = re.sub(r"max_queue_size: \d+", "max_queue_size: 7", pipeline.read_text())
    text = re.sub(r"default_timeout_microseconds: \d+", "default_timeout_microseconds: 2500000", text)
    text = re.sub(r"instance_group \[ \{ count: \d+", "instance_group [ { count: 3", text)
    pipeline.write_text(re.sub(r'(key: "window_size" value \{ string_value: )"\d+"', r'\1"6"', text))

    on_cores, on_gpus = (capacity.read_setting(tmp_path, gpus=n, **TIMES) for n in (0, 2))

    assert on_cores == Setting(3, 7, 2.5, 6, windows_in_flight=1, **TIMES)
    assert on_gpus == Setting(3, 7, 2.5, 6, windows_in_flight=2, gpus=2, **TIMES)


@pytest.fixture
def stages(tmp_path, monkeypatch):
    """A file of stages.py: an older run, then one with two sizes, the larger not the last."""
    path = tmp_path / "TINY" / "stages.csv"
    monkeypatch.setattr(capacity, "RESULTS", tmp_path)

    def add(commit, slices, factor, **changed):
        ms = dict.fromkeys((*ONCE, *STEPS, *NETWORKS, "outside the server"), 10.0) | {"merging": -1.0}
        for stage, value in (ms | {"image encoder": 50.0, "waiting in queues": 1000.0}).items():
            row = {"date": "2026-01-01", "commit": commit, "cpu": "a CPU", "cores": 2, "variant": "TINY"}
            row |= {"slices": slices, "prompts": 3, "window_size": 4, "windows_in_flight": 1, "protocol": "grpc"}
            row |= {"runtime": "cpu", "precision": "fp32"} | changed
            append_row(path, row | {"stage": stage, "ms": value * factor})

    add("old", 100, 7)
    add("new", 20, 2)
    add("new", 10, 1)
    add("new", 40, 1, windows_in_flight=2)
    add("new", 40, 1, protocol="http")
    add("new", 40, 1, runtime="cpu-bf16")
    add("new", 40, 1, variant="TINY_2D")
    return path


def test_stages_are_those_of_the_last_run_per_slice_or_volume(stages):
    times, origin = capacity.read_times(stages)

    assert times == pytest.approx({"once_s": 0.040, "steps_s": 0.080 / 20, "networks_s": 2 * 0.069 / 20})
    assert origin == "a CPU, 2 cores, fp32, 3 prompts, new"


def test_stages_of_another_way_are_refused(stages):
    stages.write_text(stages.read_text().replace(",grpc,", ",http,"))

    with pytest.raises(SystemExit, match="no 3D rows of RUNTIME=cpu, gRPC"):
        capacity.read_times(stages)


def rows_of(folder, *arguments):
    results = folder / "capacity.csv"
    capacity.main([*f"--results {results} --variant TINY --volumes 50 --slices 5 8".split(), *arguments])
    with results.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_script_finds_the_highest_traffic_that_meets_the_target(stages, tmp_path, capsys):
    one, two = rows_of(tmp_path, "--target-s", "1")

    assert float(two["volumes_per_h"]) > float(one["volumes_per_h"]) > 0
    assert float(one["p95_s"]) <= 1
    assert float(one["refused_share"]) <= 0.001
    assert (one["commit"] != "", one["times"]) == (True, "a CPU, 2 cores, fp32, 3 prompts, new")
    assert "2.0 machines, 0 GPUs each" in capsys.readouterr().out


def test_a_target_that_cannot_be_met_has_no_row(stages, tmp_path):
    results = tmp_path / "capacity.csv"

    capacity.main(f"--variant TINY --results {results} --volumes 20 --target-s 0.001".split())

    assert not results.exists()


def test_what_is_assumed_of_gpus_is_called_so(stages, tmp_path):
    gpus = ["--gpus", "2", "--gpu-ms", "1", "--at-most", "3"]
    (row,) = rows_of(tmp_path, *gpus, "--machines", "1", "--rates", "100")

    assert row["times"].startswith("ASSUMED 1 ms a slice; a CPU")
    assert (row["gpus"], row["at_most"], row["volumes_per_h"]) == ("2", "3", "100.0")


@pytest.mark.parametrize("arguments", [["--gpus", "1"], ["--gpu-ms", "3"]])
def test_times_of_a_cpu_are_not_taken_for_a_gpus(stages, tmp_path, arguments, capsys):
    with pytest.raises(SystemExit):
        rows_of(tmp_path, *arguments)
    assert "measures networks on a CPU" in capsys.readouterr().err
