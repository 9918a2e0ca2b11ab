"""What the bench calls the real rate, and the error of a prediction."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("plan_error")
    del sys.modules["plan_error"]


def build_windows(seconds: list[float]) -> list[dict[str, float]]:
    """Windows of eight clips each, at these times since the start."""
    return [
        {"data/clips_trained": 8 * (number + 1), "time/train_seconds": time}
        for number, time in enumerate(seconds)
    ]


def test_settled_rate_leaves_the_slow_start_out(bench: Any) -> None:
    rows = build_windows([30.0, 40.0, 42.0, 44.0, 46.0, 48.0, 50.0, 52.0])
    # Of eight windows two warm up: 5 x 8 clips in the 10 s from 42 to 52.
    assert bench.compute_settled_rate(rows) == pytest.approx(4.0)


def test_settled_rate_passes_over_rows_of_evaluations(bench: Any) -> None:
    rows: list[dict[str, Any]] = build_windows([1.0, 2.0, 3.0, 4.0])
    rows.insert(2, {"step": 2, "validation/val/zero_shot": 0.5})
    assert bench.compute_settled_rate(rows) == pytest.approx(8.0)


def test_settled_rate_of_too_short_a_run_is_refused(bench: Any) -> None:
    with pytest.raises(ValueError, match="too few"):
        bench.compute_settled_rate(build_windows([1.0]))


def test_comparison_error_is_positive_for_a_promise_not_kept(bench: Any) -> None:
    result = bench.Comparison(predicted=12.0, low=8.0, high=13.0, real=10.0)
    assert result.error == pytest.approx(0.2)
    assert result.is_in_range
    assert not bench.Comparison(predicted=12.0, low=11.0, high=13.0, real=10.0).is_in_range
