"""What samplers can draw, against a thousand draws of Tune's own."""

import math
from typing import Any

import pytest
from ray import tune

from lssl_ray.cluster.samplers import find_sampler_problem, list_bounds, list_values

RANGES = {
    "uniform": tune.uniform(0.2, 0.7),
    "loguniform": tune.loguniform(1e-5, 1e-2),
    "quniform": tune.quniform(0.1, 0.5, 0.1),
    "quniform_fine": tune.quniform(0, 1, 0.01),
    "randint": tune.randint(2, 9),
    "lograndint": tune.lograndint(1, 100),
    "qrandint": tune.qrandint(4, 17, 4),
    "qrandint_by_one": tune.qrandint(4, 8, 1),
}


@pytest.mark.parametrize("name", RANGES)
def test_bounds_and_values_hold_every_draw(name: str) -> None:
    sampler = RANGES[name]
    assert find_sampler_problem(sampler) is None
    draws = sampler.sample(size=1000, random_state=0)
    low, high = list_bounds(sampler)
    assert low <= min(draws) and max(draws) <= high
    values = list_values(sampler)
    if values is not None:
        assert values[0] == low and values[-1] == pytest.approx(high)
        # A thousand draws meet each of so few values.
        assert {round(draw, 9) for draw in draws} == {round(value, 9) for value in values}
        assert {type(value) for value in values} == {type(sampler.cast(draws[0]))}


def test_values_are_listed_for_short_ranges_only() -> None:
    listed = {name for name, sampler in RANGES.items() if list_values(sampler) is not None}
    assert listed == {"quniform", "randint", "qrandint", "qrandint_by_one"}
    assert list_values(RANGES["qrandint"]) == [4, 8, 12, 16]
    assert list_values(RANGES["randint"]) == [2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("sampler", "word"),
    [
        (tune.grid_search([1, 2]), "grid_search"),
        (tune.sample_from(lambda config: 1), "sample_from"),
        (tune.randn(0, 1), "randn"),
        (tune.qrandn(0, 1, 0.1), "randn"),
        (tune.qloguniform(0.1, 10, 0.1), "tune.choice"),
        (tune.choice([]), "at least one"),
        (tune.choice([1, 2, 1]), "1 more than once"),
        (tune.choice([math.sin]), "plain"),
        (tune.uniform(0.5, 0.2), "empty"),
        (tune.uniform(0.5, 0.5), "empty"),
        (tune.randint(5, 5), "empty"),
        (0.1, "0.1"),
        ([0.1, 0.2], "recipe"),
        ({"shape": "linear", "start": tune.uniform(0, 1), "end": 1.0}, "schedule"),
    ],
)
def test_sampler_that_a_sweep_cannot_use_is_refused_by_name(sampler: Any, word: str) -> None:
    problem = find_sampler_problem(sampler)
    assert problem is not None and word in problem


def test_choices_that_only_look_alike_are_different() -> None:
    assert find_sampler_problem(tune.choice([1, 1.0, True, "1", [1]])) is None
    assert find_sampler_problem(tune.randint(5, 6)) is None
