"""The rules that the benches judge by: what is flat memory, what is a warm rate."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
SECONDS = 1200.0


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads a bench module as its scripts do; leaves no trace."""
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name.startswith(("input_", "soak_")):
            del sys.modules[name]


def build_samples(load: Any, memory: np.ndarray) -> list[Any]:
    """Samples every ten seconds, 500 clips apart."""
    trend, roles = load("soak_trend"), load("input_memory")
    return [
        trend.Sample(10.0 * n, 500 * n, roles.RoleMemory("a role", 2, 0.0, 0.0, float(value)))
        for n, value in enumerate(memory)
    ]


def test_trend_sawtooth_after_a_steep_start_is_flat(load: Any) -> None:
    n = np.arange(120)
    memory = np.where(n < 25, 10 * n, 250) + 40 * (n % 7) / 7  # fills up, then leaks and recycles
    trend = load("soak_trend").compute_trend("r", build_samples(load, memory), seconds=SECONDS)
    assert trend.verdict == "flat"
    assert abs(trend.growth) < 5


def test_trend_slow_leak_under_noise_is_found_with_its_slope(load: Any) -> None:
    n = np.arange(120)
    noise = np.random.default_rng(0).normal(0, 5, size=n.size)
    leak = 0.4 * 0.5 * n  # 0.4 MiB per 1,000 clips
    samples = build_samples(load, 300 + leak + noise)
    trend = load("soak_trend").compute_trend("r", samples, seconds=SECONDS)
    assert trend.verdict == "grows"
    assert trend.slope == pytest.approx(0.4, abs=0.1)
    assert trend.low < 0.4 < trend.high


def test_trend_single_peak_is_not_growth(load: Any) -> None:
    memory = np.full(120, 100.0)
    memory[-3:] = 900.0
    trend = load("soak_trend").compute_trend("r", build_samples(load, memory), seconds=SECONDS)
    assert trend.verdict == "flat"


def test_trend_of_a_short_run_is_no_verdict(load: Any) -> None:
    samples = build_samples(load, np.full(12, 100.0))
    trend = load("soak_trend").compute_trend("r", samples, seconds=120.0)
    assert trend.verdict == "too short to say"


def test_rate_counts_neither_the_start_nor_the_end_of_a_pass(load: Any) -> None:
    steady = 100.0 + 0.5 * np.arange(20)  # 8 clips each half a second: 16 clips/s
    arrivals = np.concatenate([[90.0, 99.5], steady, [140.0, 150.0]])
    one = load("input_paths").Pass(60.0, tuple(arrivals.tolist()), 8)
    assert one.first_batch_seconds == 30.0
    assert one.compute_rate(trim=2, group=1) == pytest.approx(16.0, rel=0.06)
    assert one.compute_rate(trim=3, group=1) == pytest.approx(16.0)


def test_rate_of_batches_that_come_in_pairs_is_their_mean_rate(load: Any) -> None:
    pairs = np.repeat(np.arange(11) * 2.0, 2) + np.tile([0.0, 0.01], 11)  # two batches every 2 s
    one = load("input_paths").Pass(-1.0, tuple(pairs.tolist()), 8)
    assert one.compute_rate(trim=2, group=2) == pytest.approx(8.0)
    assert one.compute_rate(trim=3, group=2) == pytest.approx(8.0)


def test_rate_of_a_pass_too_short_is_refused(load: Any) -> None:
    one = load("input_paths").Pass(0.0, (1.0, 2.0, 3.0, 4.0), 8)
    with pytest.raises(SystemExit, match="--clips"):
        one.compute_rate(trim=2, group=2)
