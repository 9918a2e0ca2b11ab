"""The compact set of steps against Python's own."""

import json

from hypothesis import given
from hypothesis import strategies as st

from lssl_ray.tracking.steps import StepSet


@given(steps=st.lists(st.integers(0, 60)))
def test_step_set_of_any_steps_in_any_order_holds_exactly_these(steps: list[int]) -> None:
    ours = StepSet()
    for step in steps:
        ours.add(step)
    again = StepSet(json.loads(json.dumps(ours.to_json())))
    for step in range(62):
        assert (step in ours) == (step in again) == (step in set(steps))


def test_step_set_of_a_long_run_stays_small() -> None:
    ours = StepSet()
    for step in range(10, 100_000, 10):
        ours.add(step)
    assert len(ours.to_json()) == 1
    assert 50_000 in ours and 50_001 not in ours and 100_000 not in ours
