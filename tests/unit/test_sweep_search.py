"""Where configurations come from, and what a resumed sweep remembers of them."""

import logging
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.schedulers import TrialScheduler

from lssl_ray.cluster import sweep as wiring
from lssl_ray.cluster.search import ListedSource, OptunaSource, draw_random, open_source
from lssl_ray.cluster.sweep_space import SweepSpace
from lssl_ray.errors import ConfigError
from lssl_ray.sweep.scores import Score

SAMPLERS = {
    "optim.learning_rate": tune.loguniform(1e-5, 1e-2),
    "views.jitter_strength": tune.choice([[0.1, 0.1, 0.1], [0.4, 0.4, 0.2]]),
    "variant": tune.choice(["names", "full"]),
}


def build_space(samplers: dict[str, Any]) -> SweepSpace:
    return SweepSpace("made_up", "Which is best?", samplers)


def test_random_draws_are_different_and_the_same_for_a_seed() -> None:
    space = build_space(SAMPLERS)
    drawn = draw_random(space, num_configurations=8, seed=3)
    assert len({str(values) for values in drawn}) == 8
    assert drawn == draw_random(space, num_configurations=8, seed=3)
    assert drawn != draw_random(space, num_configurations=8, seed=4)


def test_random_draws_of_few_values_end_when_all_are_drawn() -> None:
    space = build_space({"variant": tune.choice(["a", "b", "c"])})
    drawn = draw_random(space, num_configurations=10, seed=0)
    assert sorted(values["variant"] for values in drawn) == ["a", "b", "c"]


@pytest.mark.parametrize("search", ["random", "grid"])
def test_a_resumed_list_goes_on_where_it_was(search: Any) -> None:
    space = build_space({"variant": tune.choice(["a", "b", "c"])})
    whole = open_source(space, search=search, num_configurations=3, num_drawn=0, seed=1)
    rest = open_source(space, search=search, num_configurations=3, num_drawn=1, seed=1)
    drawn = [whole.draw() for _ in range(4)]
    assert [rest.draw() for _ in range(3)] == drawn[1:]


@pytest.mark.parametrize("search", ["random", "grid", "optuna"])
def test_a_source_knows_how_many_are_still_to_come(search: Any) -> None:
    space = build_space({"variant": tune.choice(["a", "b", "c"])})
    source = open_source(space, search=search, num_configurations=3, num_drawn=1, seed=1)
    counts = [source.count_left()]
    while source.draw() is not None:
        counts.append(source.count_left())
    assert counts == [2, 1, 0]


def test_a_grid_is_not_cut_short() -> None:
    space = build_space({"variant": tune.choice(["a", "b", "c"])})
    with pytest.raises(ConfigError, match="3 configurations"):
        open_source(space, search="grid", num_configurations=2, num_drawn=0, seed=0)


@pytest.mark.parametrize("search", ["random", "optuna"])
def test_draws_need_a_number(search: Any) -> None:
    with pytest.raises(ConfigError, match="--trials"):
        open_source(
            build_space(SAMPLERS), search=search, num_configurations=None, num_drawn=0, seed=0
        )


def open_optuna(samplers: dict[str, Any], *, num_drawn: int = 0) -> OptunaSource:
    logging.getLogger("optuna").setLevel(logging.WARNING)
    return OptunaSource(build_space(samplers), num_configurations=60, num_drawn=num_drawn, seed=0)


def test_optuna_gives_plain_values_of_the_space_and_ends_in_time() -> None:
    source = open_optuna(SAMPLERS, num_drawn=57)
    drawn = [source.draw() for _ in range(4)]
    assert drawn[3] is None
    for values in drawn[:3]:
        assert values is not None
        assert values["views.jitter_strength"] in ([0.1, 0.1, 0.1], [0.4, 0.4, 0.2])
        assert 1e-5 <= values["optim.learning_rate"] <= 1e-2


def test_optuna_learns_from_what_an_earlier_session_found() -> None:
    """Told of trials that it never drew itself, it draws where those did well."""
    samplers = {"optim.learning_rate": tune.uniform(0.0, 1.0), "variant": tune.choice(["a", "b"])}
    source = open_optuna(samplers, num_drawn=30)
    for number in range(30):
        rate, variant = number / 30, "ab"[number % 2]
        source.tell({"optim.learning_rate": rate, "variant": variant}, -abs(rate - 0.8))
    rates = [values["optim.learning_rate"] for _ in range(20) if (values := source.draw())]
    assert len(rates) == 20
    assert sorted(rates)[10] > 0.6


def test_a_listed_source_does_not_change_its_list() -> None:
    configurations = [{"variant": "a"}]
    source = ListedSource(configurations)
    assert source.draw() == {"variant": "a"}
    assert source.draw() is None
    assert configurations == [{"variant": "a"}]


class StandIn:
    """What ASHA looks at of a trial."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def judge(scheduler: TrialScheduler, value: float, *, progress: float = 25.0) -> str:
    trial: Any = StandIn("new")
    scheduler.on_trial_add(None, trial)
    result = {wiring.SCORE: value, wiring.PROGRESS: progress}
    return str(scheduler.on_trial_result(None, trial, result))


PAST = {f"c00{number}": [Score(10, 25.0, float(number))] for number in range(1, 5)}


@pytest.mark.parametrize(
    ("value", "expected"), [(2.0, TrialScheduler.STOP), (3.0, TrialScheduler.CONTINUE)]
)
def test_trials_of_an_earlier_session_set_the_mark(value: float, expected: str) -> None:
    """Of 1, 2, 3, 4 at a quarter of the steps the median is 2.5."""
    scheduler = wiring.build_scheduler("asha")
    wiring.tell_past(scheduler, PAST)
    assert judge(scheduler, value) == expected


def test_a_trial_is_not_stopped_for_being_done_nor_before_the_first_rung() -> None:
    scheduler = wiring.build_scheduler("asha")
    wiring.tell_past(scheduler, PAST)
    assert judge(scheduler, 5.0, progress=100.0) == TrialScheduler.CONTINUE
    assert judge(wiring.build_scheduler("asha"), 0.0, progress=100.0) == TrialScheduler.CONTINUE
    scheduler = wiring.build_scheduler("asha")
    wiring.tell_past(scheduler, PAST)
    assert judge(scheduler, 0.0, progress=20.0) == TrialScheduler.CONTINUE


def test_without_a_scheduler_nothing_is_stopped(tmp_path: Path) -> None:
    scheduler = wiring.build_scheduler("none")
    wiring.tell_past(scheduler, PAST)
    assert judge(scheduler, -100.0) == TrialScheduler.CONTINUE
