"""What is kept of the image encoders' outputs, for how long, and who gets it."""

import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import fake_triton

fake_triton.install()

from medimageparse_serving.step_environment import CACHE_BYTES  # noqa: E402
from medimageparse_serving.triton import feature_cache, inner_key  # noqa: E402
from medimageparse_serving.triton.feature_cache import FeatureCache, key_of  # noqa: E402
from medimageparse_serving.triton.network import Network  # noqa: E402

KB = 1000


def features(value, n_bytes=KB):
    return [np.full(n_bytes // 2, value, np.uint8), np.full(n_bytes // 2, value, np.uint8)]


@pytest.fixture
def timers(monkeypatch):
    """Those that were started; they never fire by themselves."""
    made = []
    monkeypatch.setattr(feature_cache.threading, "Timer", lambda seconds, wake: Timer(seconds, wake, made))
    return made


@pytest.fixture
def clock(monkeypatch, timers):
    """Seconds, to be set. Of the cache alone: event loops of other tests' gateways have the real ones."""
    now = [0.0]
    monkeypatch.setattr(feature_cache, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture(autouse=True)
def _as_configured(monkeypatch):
    """What the launcher says in the environment, in tests of this process too, does not count."""
    monkeypatch.delenv(CACHE_BYTES, raising=False)


class Timer:
    def __init__(self, seconds, wake, made):
        self.seconds, self.wake = seconds, wake
        made.append(self)

    def start(self):
        assert self.daemon  # or a server that ends would wait for it


def test_what_was_not_used_for_longest_goes_first(clock):
    cache = FeatureCache(3 * KB, 60)
    for name in (b"a", b"b", b"c"):
        cache.keep(name, features(name[0]))
    assert cache.find(b"a")[0][0] == ord("a")
    cache.keep(b"d", features(1, 2 * KB))
    assert [name for name in (b"a", b"b", b"c", b"d") if cache.find(name)] == [b"a", b"d"]
    assert cache.n_bytes == 3 * KB


def test_never_more_than_its_bytes(clock):
    cache = FeatureCache(3 * KB, 60)
    for n in np.random.default_rng(0).integers(0, 5 * KB, 200):
        cache.keep(bytes([n % 7]), features(1, int(n)))
        assert cache.n_bytes == sum(entry.n_bytes for entry in cache.entries.values()) <= 3 * KB


def test_what_is_larger_than_all_leaves_the_rest(clock):
    cache = FeatureCache(KB, 60)
    cache.keep(b"a", features(1))
    cache.keep(b"b", features(2, 2 * KB))
    assert cache.find(b"a")
    assert cache.find(b"b") is None


def test_nothing_outlives_its_time_however_often_it_is_used(clock):
    cache = FeatureCache(KB, 60)
    cache.keep(b"a", features(1))
    for seconds in (30, 59):
        clock[0] = seconds
        assert cache.find(b"a")
    clock[0] = 60
    assert cache.find(b"a") is None
    assert cache.n_bytes == 0


def test_it_empties_itself_when_nobody_asks(clock, timers):
    cache = FeatureCache(3 * KB, 60)
    cache.keep(b"a", features(1))
    clock[0] = 20
    cache.keep(b"b", features(2))
    assert [timer.seconds for timer in timers] == [60]
    clock[0] = 60
    timers[0].wake()
    assert list(cache.entries) == [b"b"]
    assert [timer.seconds for timer in timers] == [60, 20]
    clock[0] = 80
    timers[1].wake()
    assert not cache.entries
    assert len(timers) == 2


def test_memory_of_others_is_copied():
    cache, buffer = FeatureCache(KB, 60), np.zeros(8, np.uint8)
    cache.keep(b"a", [buffer[:4]])
    buffer[:] = 9
    assert not cache.find(b"a")[0].any()


def test_many_threads_leave_it_whole():
    cache = FeatureCache(20 * KB, 60)

    def work(seed):
        for n in np.random.default_rng(seed).integers(0, 40, 300):
            found = cache.find(bytes([n]))
            assert found is None or found[0][0] == n
            cache.keep(bytes([n]), features(n))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.n_bytes == sum(entry.n_bytes for entry in cache.entries.values()) == 20 * KB
    cache.timer.cancel()


def test_a_key_tells_all_inputs_apart():
    window = np.arange(16, dtype=np.uint8)
    changed = window.copy()
    changed[-1] ^= 1
    inputs = [
        {"window": window},
        {"window": changed},
        {"window": window.reshape(4, 4)},
        {"window": window.view(np.int8)},
        {"pixels": window},
        {"window": window[:8], "digits": window[8:]},
        {"window": window[::-1]},
    ]
    keys = [key_of(feeds, ["a"]) for feeds in inputs] + [key_of(inputs[0], ["b"]), key_of(inputs[0], ["a", "b"])]
    assert len(set(keys)) == len(keys)
    assert key_of({"window": window.copy()}, ["a"]) == keys[0]


class Encoder(Network):
    misfits = (ValueError,)

    def load(self, graph, parameters):
        self.runs = []
        return ["window"]

    def run(self, feeds, names):
        self.runs.append(names)
        if feeds["window"].max() > 9:
            raise ValueError
        return [feeds["window"] * 2 for _ in names]


def encoder_of(**parameters):
    encoder = Encoder()
    config = {"parameters": {name: {"string_value": value} for name, value in parameters.items()}}
    encoder.initialize({"model_config": json.dumps(config), "model_repository": "/m", "model_version": "1"})
    return encoder


def ask(encoder, value, **parameters):
    request = fake_triton.Request(["features"], window=np.full(3, value, np.uint8))
    request.sent_parameters = json.dumps(parameters)
    (response,) = encoder.execute([request])
    return response


def test_the_same_window_is_encoded_once_with_equal_bits():
    encoder = encoder_of(feature_cache_bytes="1000", feature_cache_seconds="60")
    answers = [ask(encoder, value).arrays()["features"].tolist() for value in (3, 4, 3, 3)]
    assert answers == [[6] * 3, [8] * 3, [6] * 3, [6] * 3]
    assert len(encoder.runs) == 2
    encoder.cache.timer.cancel()


def test_a_failure_is_not_kept():
    encoder = encoder_of(feature_cache_bytes="1000", feature_cache_seconds="60")
    assert all(ask(encoder, 10).has_error() for _ in range(2))
    assert len(encoder.runs) == 2
    assert not encoder.cache.entries


@pytest.mark.parametrize("parameters", [{}, {"feature_cache_bytes": "0", "feature_cache_seconds": "60"}])
def test_without_a_cache_every_window_is_encoded(parameters):
    encoder = encoder_of(**parameters)
    for _ in range(2):
        ask(encoder, 3)
    assert len(encoder.runs) == 2


def test_the_launcher_can_turn_it_off_and_gives_no_cache_to_other_networks(monkeypatch):
    monkeypatch.setenv(CACHE_BYTES, "0")
    assert not encoder_of(feature_cache_bytes="1000", feature_cache_seconds="60").has_cache
    monkeypatch.setenv(CACHE_BYTES, "5000")
    assert encoder_of(feature_cache_bytes="1000", feature_cache_seconds="60").cache.max_bytes == 5000
    assert not encoder_of().has_cache


def test_a_canary_reaches_the_network(monkeypatch):
    monkeypatch.setenv(inner_key.INNER_KEY, "a word")
    encoder = encoder_of(feature_cache_bytes="1000", feature_cache_seconds="60")
    for _ in range(2):
        ask(encoder, 3, **inner_key.parameters())
    ask(encoder, 3, **inner_key.parameters(is_fresh=True))
    assert len(encoder.runs) == 2
    encoder.cache.timer.cancel()


def test_only_the_launcher_sends_canaries(monkeypatch):
    request = fake_triton.Request()
    request.sent_parameters = '{"inner_key": "a word"}'
    assert not inner_key.is_from_launcher(request)
    monkeypatch.setenv(inner_key.INNER_KEY, "a word")
    assert inner_key.is_from_launcher(request)
    for sent in ("", '{"inner_key": "another"}', '{"fresh": "yes"}'):
        request.sent_parameters = sent
        assert not inner_key.is_from_launcher(request)
