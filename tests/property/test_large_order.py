"""The order of collections too large to shuffle: still a permutation, still pure, still mixed."""

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lssl_ray.video.order import (
    LARGEST_SHUFFLE,
    RunPlan,
    compute_epoch_order,
    compute_order_part,
    permute_keyed,
)

HUGE = 10**8


def draw_keys(seed: int) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(2**64, size=8, dtype=np.uint64)


def permute_all(num_values: int, seed: int) -> NDArray[np.uint64]:
    values = np.arange(num_values, dtype=np.uint64)
    return permute_keyed(values, num_values=num_values, keys=draw_keys(seed))


@given(num_values=st.integers(1, 500), seed=st.integers(0, 2**32))
def test_keyed_permutation_is_one_for_any_length(num_values: int, seed: int) -> None:
    assert sorted(permute_all(num_values, seed).tolist()) == list(range(num_values))


@given(
    num_values=st.integers(1, 10**12),
    seed=st.integers(0, 2**32),
    places=st.lists(st.integers(0, 10**12), min_size=1, max_size=20, unique=True),
)
def test_keyed_permutation_of_any_places_stays_in_range_and_apart(
    num_values: int, seed: int, places: list[int]
) -> None:
    inside = sorted({place % num_values for place in places})
    values = np.array(inside, dtype=np.uint64)
    taken = permute_keyed(values, num_values=num_values, keys=draw_keys(seed))
    assert len(set(taken.tolist())) == len(inside)
    assert int(taken.max()) < num_values


def test_keyed_permutation_leaves_no_trace_of_the_old_order() -> None:
    num_values = 40_000
    order = permute_all(num_values, 1).astype(np.float64)
    # Of a random permutation both correlations are within 5 / sqrt(n) but once in a million.
    limit = 5 / num_values**0.5
    assert abs(np.corrcoef(order, np.arange(num_values))[0, 1]) < limit
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < limit
    # Each tenth of the epoch takes its tenth of each tenth of the manifest: 400 +- 5 deviations.
    counts, _, _ = np.histogram2d(np.arange(num_values), order, bins=10)
    assert np.abs(counts - num_values / 100).max() < 5 * (num_values / 100) ** 0.5
    # A random permutation has one fixed point on average.
    assert (order == np.arange(num_values)).sum() < 10


def test_keyed_permutations_of_other_keys_agree_only_by_chance() -> None:
    orders = [permute_all(10_000, seed) for seed in range(4)]
    for first in range(4):
        for second in range(first):
            assert (orders[first] == orders[second]).sum() < 12


def test_huge_order_differs_by_epoch_and_seed_and_is_pure() -> None:
    parts = {
        (seed, epoch): tuple(
            compute_order_part(HUGE, seed=seed, epoch=epoch, start=5, stop=25).tolist()
        )
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(parts.values())) == 4
    again = compute_order_part(HUGE, seed=1, epoch=1, start=0, stop=30)[5:25]
    assert tuple(again.tolist()) == parts[1, 1]


def test_huge_order_is_fixed_for_ever() -> None:
    """Runs that began with it must be able to go on: these numbers may never change."""
    part = compute_order_part(HUGE, seed=3, epoch=2, start=0, stop=4)
    assert part.tolist() == [28408907, 68431213, 99503866, 22761821]


def test_order_up_to_the_limit_is_numpys_shuffle() -> None:
    expected = np.random.default_rng([7, 0, 3]).permutation(1000)
    assert compute_epoch_order(1000, seed=7, epoch=3).tolist() == expected.tolist()
    assert RunPlan(1000, 5000, 7).compute_visits(3000, 3001)[0].video == expected[0]


def test_order_of_an_epoch_is_nobodys_to_change() -> None:
    before = compute_epoch_order(50, seed=0, epoch=0)
    compute_epoch_order(50, seed=0, epoch=0)[:] = 0
    assert compute_epoch_order(50, seed=0, epoch=0).tolist() == before.tolist()


def test_huge_plan_visits_over_an_epochs_end_take_no_memory_to_speak_of() -> None:
    plan = RunPlan(num_videos=HUGE, num_positions=3 * HUGE, seed=0)
    tracemalloc.start()
    visits = plan.compute_visits(HUGE - 4, HUGE + 4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [visit.position for visit in visits] == list(range(HUGE - 4, HUGE + 4))
    assert [visit.epoch for visit in visits] == [0] * 4 + [1] * 4
    assert all(0 <= visit.video < HUGE for visit in visits)
    assert peak < 2**20


def test_order_just_above_the_limit_covers_the_end_of_the_manifest() -> None:
    num_videos = LARGEST_SHUFFLE + 1
    part = compute_order_part(num_videos, seed=0, epoch=0, start=num_videos - 5, stop=num_videos)
    assert len(set(part.tolist())) == 5
    assert part.max() < num_videos


def test_order_of_a_million_videos_is_shuffled_once_not_for_every_block() -> None:
    num_videos = 10**6
    plan = RunPlan(num_videos=num_videos, num_positions=num_videos, seed=11)
    peaks = []
    tracemalloc.start()
    for start in (0, 8, 16):
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        plan.compute_visits(start, start + 8)
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    assert peaks[0] > 4 * num_videos  # the order itself
    assert max(peaks[1:]) < 2**16
