"""The best configuration as a file that training takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lssl_ray.config import RunConfig, load_config
from lssl_ray.errors import ConfigError
from lssl_ray.sweep.recipe import write_best_recipe
from lssl_ray.sweep.trials import build_overrides

VALUES: dict[str, Any] = {
    "optim.learning_rate": 1e-05,
    "optim.teacher_momentum": [0.99, 1.0],
    "objective.teacher_temperature": {"shape": "linear", "start": 0.1, "end": 0.05, "until": 0.5},
    "objective.weight_align": 0,
    "views.global.num_frames": 4,
    "concepts.labels": "bank:lss-c",
    "concepts.spaces": "category",
    "model.freeze_spatial": True,
    "health.collapse": "off",
}


def test_best_recipe_read_back_is_the_base_with_the_values(
    recipe_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "out" / "best.yaml"
    config = write_best_recipe(load_config(recipe_file), VALUES, path)
    assert load_config(path) == config
    assert config == load_config(recipe_file, build_overrides(VALUES))
    assert config.optim.learning_rate == 1e-5
    assert config.optim.epochs == load_config(recipe_file).optim.epochs


def test_best_recipe_gets_defaults_that_depend_on_a_value_as_its_trial_did(
    recipe_file: Path, tmp_path: Path
) -> None:
    values = {"objective.space": "prototypes"}
    config = write_best_recipe(load_config(recipe_file), values, tmp_path / "best.yaml")
    assert config == load_config(recipe_file, build_overrides(values))
    assert config.objective.centering_momentum == 0.9


def test_best_recipe_begins_with_its_header_as_comment(
    build_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    path = tmp_path / "best.yaml"
    header = ["sweep temperatures, trial t3", "agreement 0.71: run\nname"]
    write_best_recipe(build_config(), {}, path, header=header)
    lines = path.read_text().splitlines()
    assert lines[:3] == ["# sweep temperatures, trial t3", "# agreement 0.71: run", "# name"]
    assert load_config(path) == build_config()


def test_best_recipe_of_values_that_do_not_fit_writes_nothing(
    build_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    path = tmp_path / "best.yaml"
    path.write_text("before")
    with pytest.raises(ConfigError, match="learning_rate"):
        write_best_recipe(build_config(), {"optim.learning_rate": -1}, path)
    assert path.read_text() == "before"


def test_overrides_put_a_schedule_before_what_changes_a_part_of_it(recipe_file: Path) -> None:
    schedule = {"shape": "linear", "start": 0.1, "end": 0.05}
    values = {
        "objective.teacher_temperature.start": 0.2,
        "objective.teacher_temperature": schedule,
    }
    config = load_config(recipe_file, build_overrides(values))
    assert config.objective.teacher_temperature.start == 0.2  # type: ignore[union-attr]
