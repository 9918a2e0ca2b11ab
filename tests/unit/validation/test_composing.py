"""From a configuration to the steps that are evaluated and the scores that there are."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lssl_ray.config import RunConfig
from lssl_ray.errors import ConfigError
from lssl_ray.evaluation.label_free import SCORE_NAMES
from lssl_ray.validation.composing import build_holder, require_known_score

BuildConfig = Callable[..., RunConfig]


def test_holder_is_due_every_so_many_checkpoints_and_at_the_end(
    build_config: BuildConfig, tmp_path: Path
) -> None:
    config = build_config(
        "evaluation.every_checkpoints=3", "run.checkpoint_every=10", "optim.max_steps=75"
    )
    holder = build_holder(config, tmp_path, num_videos=1000)
    assert holder is not None
    assert (holder.every_steps, holder.last_step) == (30, 75)


def test_holder_of_a_session_that_stops_early_is_due_at_its_end(
    build_config: BuildConfig, tmp_path: Path
) -> None:
    config = build_config("evaluation.every_checkpoints=3", "run.stop_at_step=3")
    holder = build_holder(config, tmp_path, num_videos=8)
    assert holder is not None and holder.last_step == 3


def test_holder_without_evaluations_is_none(build_config: BuildConfig, tmp_path: Path) -> None:
    assert build_holder(build_config(), tmp_path, num_videos=8) is None


def test_best_by_an_unknown_score_is_refused_with_the_known_ones(
    build_config: BuildConfig,
) -> None:
    settings = ("data.hold_back=2", "evaluation.every_checkpoints=1")
    with pytest.raises(ConfigError) as caught:
        require_known_score(build_config(*settings, "evaluation.best=held_back/beauty"))
    assert "beauty" in str(caught.value) and SCORE_NAMES[0] in str(caught.value)
    require_known_score(build_config(*settings, f"evaluation.best=held_back/{SCORE_NAMES[0]}"))
    require_known_score(build_config())
