"""Trials as a sweep plans them, one configuration after the other, each with all of its seeds."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lssl_ray.cluster.search import open_source
from lssl_ray.config import load_config
from lssl_ray.display import RunDisplay
from lssl_ray.sweeping.job import SweepConductor
from lssl_ray.sweeping.request import SweepRequest, create_sweep

SPACE = '''"""Which rate is best?"""

from ray import tune


def build_space():
    return {"optim.learning_rate": tune.loguniform(1.0e-4, 1.0e-2)}
'''


@pytest.mark.parametrize("search", ["random", "optuna"])
def test_conductor_gives_every_seed_of_every_configuration_and_counts_what_is_left(
    tmp_path: Path, recipe_file: Path, search: Any
) -> None:
    space = tmp_path / "rates.py"
    space.write_text(SPACE)
    request = SweepRequest(
        space=space,
        config=recipe_file,
        num_trials=2,
        num_seeds=2,
        search=search,
        metric="-loss/total",
    )
    opened = create_sweep(request)
    source = open_source(opened.space, search=search, num_configurations=2, num_drawn=0, seed=0)
    display = RunDisplay(Console(file=io.StringIO()))
    conductor = SweepConductor(opened, source, overrides={}, display=display)
    given, counts = [], [conductor.count_left()]
    while (task := conductor.draw_trial()) is not None:
        given.append(task)
        counts.append(conductor.count_left())
    assert counts == [4, 3, 2, 1, 0]
    assert [task.trial_id for task in given] == ["c001-s0", "c001-s1", "c002-s0", "c002-s1"]
    recipes = [load_config(Path(task.command[-1])) for task in given]
    assert [recipe.run.seed for recipe in recipes] == [0, 1, 0, 1]
    rates = [recipe.optim.learning_rate for recipe in recipes]
    assert rates[0] == rates[1] != rates[2] == rates[3]
