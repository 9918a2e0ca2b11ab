"""Schedules: bounds, ends, warm-up."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lssl_ray.training.schedules import constant, cosine, linear

values = st.floats(min_value=0, max_value=10, allow_nan=False)


@st.composite
def lengths(draw: st.DrawFn) -> tuple[int, int]:
    num_steps = draw(st.integers(1, 500))
    return num_steps, draw(st.integers(0, num_steps - 1))


@given(start=values, end=values, length=lengths(), step=st.integers(0, 1000))
def test_cosine_stays_within_bounds(
    start: float, end: float, length: tuple[int, int], step: int
) -> None:
    num_steps, warmup_steps = length
    value = cosine(start, end, num_steps=num_steps, warmup_steps=warmup_steps)(step)
    lowest = 0.0 if step < warmup_steps else min(start, end)
    assert lowest - 1e-9 <= value <= max(start, end) + 1e-9


@given(start=values, end=values, length=lengths())
def test_cosine_meets_start_after_warmup_and_end_at_last_step(
    start: float, end: float, length: tuple[int, int]
) -> None:
    num_steps, warmup_steps = length
    schedule = cosine(start, end, num_steps=num_steps, warmup_steps=warmup_steps)
    assert schedule(warmup_steps) == pytest.approx(start)
    if num_steps - 1 > warmup_steps:
        assert schedule(num_steps - 1) == pytest.approx(end, abs=1e-9)
        assert schedule(num_steps + 10) == pytest.approx(end, abs=1e-9)


@given(start=values, end=values, length=lengths())
def test_cosine_is_monotone_on_each_side_of_the_warmup(
    start: float, end: float, length: tuple[int, int]
) -> None:
    num_steps, warmup_steps = length
    schedule = cosine(start, end, num_steps=num_steps, warmup_steps=warmup_steps)
    rising = [schedule(step) for step in range(warmup_steps)]
    assert rising == sorted(rising)
    after = [schedule(step) for step in range(warmup_steps, num_steps)]
    falling = [a - b for a, b in itertools.pairwise(after)]
    assert all(d >= -1e-9 for d in falling) if start >= end else all(d <= 1e-9 for d in falling)


def test_cosine_warmup_is_linear_from_its_first_share() -> None:
    schedule = cosine(8.0, 1.0, num_steps=100, warmup_steps=4)
    assert [schedule(step) for step in range(5)] == [2.0, 4.0, 6.0, 8.0, 8.0]


def test_cosine_halfway_and_quarter_follow_the_formula() -> None:
    schedule = cosine(1.0, 0.0, num_steps=9)
    assert schedule(4) == pytest.approx(0.5)
    assert schedule(2) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


@given(start=values, end=values, num_steps=st.integers(1, 500), step=st.integers(0, 1000))
def test_linear_stays_between_its_ends(start: float, end: float, num_steps: int, step: int) -> None:
    value = linear(start, end, num_steps=num_steps)(step)
    assert min(start, end) - 1e-9 <= value <= max(start, end) + 1e-9


@given(start=values, end=values, num_steps=st.integers(2, 500))
def test_linear_goes_from_start_to_end_in_equal_strides(
    start: float, end: float, num_steps: int
) -> None:
    schedule = linear(start, end, num_steps=num_steps)
    found = [schedule(step) for step in range(num_steps + 3)]
    assert found[0] == start and found[num_steps - 1 :] == [end] * 4
    strides = [b - a for a, b in itertools.pairwise(found[:num_steps])]
    assert strides == pytest.approx([(end - start) / (num_steps - 1)] * len(strides), abs=1e-9)


def test_linear_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="num_steps=0"):
        linear(1.0, 0.0, num_steps=0)


def test_constant_never_changes() -> None:
    assert [constant(0.3)(step) for step in (0, 1, 10**6)] == [0.3] * 3


@pytest.mark.parametrize(("num_steps", "warmup_steps"), [(0, 0), (5, 5), (5, 6), (5, -1)])
def test_cosine_lengths_without_room_are_refused(num_steps: int, warmup_steps: int) -> None:
    with pytest.raises(ValueError, match="warmup_steps"):
        cosine(1.0, 0.0, num_steps=num_steps, warmup_steps=warmup_steps)
