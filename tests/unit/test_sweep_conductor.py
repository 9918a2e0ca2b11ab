"""Trials as a sweep plans them, one configuration after the other, each with all of its seeds."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lssl_ray.cluster.search import open_source
from lssl_ray.config import load_config
from lssl_ray.display import RunDisplay
from lssl_ray.locking import find_lock, holding
from lssl_ray.sweeping.job import SweepConductor
from lssl_ray.sweeping.request import SweepRequest, create_sweep, open_sweep

SPACE = '''"""Which rate is best?"""

from ray import tune


def build_space():
    return {"optim.learning_rate": tune.loguniform(1.0e-4, 1.0e-2)}
'''


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "rates.py"
    path.write_text(SPACE)
    return path


@pytest.mark.parametrize("search", ["random", "optuna"])
def test_conductor_gives_every_seed_of_every_configuration_and_counts_what_is_left(
    space: Path, recipe_file: Path, search: Any
) -> None:
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


def test_progress_counts_the_trials_that_there_will_be(space: Path, recipe_file: Path) -> None:
    """Not those that a space of two values can't give."""
    space.write_text(SPACE.replace("loguniform(1.0e-4, 1.0e-2)", "choice([1.0e-3, 1.0e-2])"))
    request = SweepRequest(space=space, config=recipe_file, num_trials=20, metric="-loss/total")
    opened = create_sweep(request)
    source = open_source(opened.space, search="random", num_configurations=20, num_drawn=0, seed=0)
    shown = io.StringIO()
    display = RunDisplay(Console(file=shown))
    assert SweepConductor(opened, source, overrides={}, display=display).draw_trial() is not None
    assert re.findall(r"(\d+)/(\d+)", shown.getvalue()) == [("0", "2")]


def test_trials_of_a_sweep_that_was_moved_train_where_it_is_now(
    space: Path, recipe_file: Path, tmp_path: Path
) -> None:
    """Tune reads their scores there, and nowhere else."""
    request = SweepRequest(space=space, config=recipe_file, num_trials=1, metric="-loss/total")
    begun = create_sweep(request)
    source = open_source(begun.space, search="random", num_configurations=1, num_drawn=0, seed=0)
    values = source.draw()
    assert values is not None
    begun.record.plan(values, begun.space.compute_settings(values))
    opened = open_sweep(str(begun.record.folder.path.rename(tmp_path / "moved")))
    display = RunDisplay(Console(file=io.StringIO()))
    task = SweepConductor(opened, source, overrides={}, display=display).draw_trial()
    assert task is not None
    run = load_config(Path(task.command[-1])).run
    assert Path(run.folder, run.name) == Path(task.run_folder)
    assert Path(task.run_folder).parent == tmp_path / "moved" / "trials"


def test_decoded_videos_of_a_trial_that_was_stopped_go_once_its_process_is_gone(
    space: Path, recipe_file: Path
) -> None:
    """A run that finishes deletes its own; of one that goes on later they are of use."""
    request = SweepRequest(
        space=space, config=recipe_file, num_trials=3, scheduler="none", metric="-loss/total"
    )
    opened = create_sweep(request)
    source = open_source(opened.space, search="random", num_configurations=3, num_drawn=0, seed=0)
    display = RunDisplay(Console(file=io.StringIO()))
    conductor = SweepConductor(opened, source, overrides={}, display=display)
    stopped, failed, running = (
        Path(task.run_folder) for _ in range(3) if (task := conductor.draw_trial()) is not None
    )
    for folder in (stopped, failed, running):
        (folder / "validation" / "views").mkdir(parents=True)
        (folder / "validation" / "asked.json").touch()
    with holding(find_lock(stopped), what="trial"):
        conductor.note_end(stopped.name, "stopped_early", "too low")
        assert (stopped / "validation" / "views").is_dir()
    conductor.note_end(failed.name, "failed", "it broke")
    left = [(folder / "validation" / "views").is_dir() for folder in (stopped, failed, running)]
    assert left == [False, False, True]
    assert (stopped / "validation" / "asked.json").is_file()
