"""What label-free scores look at: the same for every run, as they were measured."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lssl_ray import build
from lssl_ray.concepts.space import save_concept_space
from lssl_ray.config import RunConfig, dump_config, load_config
from lssl_ray.demo.job import RECIPE
from lssl_ray.model.clip import ClipModel
from lssl_ray.validation.composing import build_evaluator
from lssl_ray.validation.scoring_views import build_scoring_views

BuildConfig = Callable[..., RunConfig]
EASY = (
    "views.global.area=[0.95, 1.0]",
    "views.global.count=1",
    "views.global.window_share=0.5",
    "views.window_seconds=1.0",
    "views.flip_probability=0.0",
    "views.jitter_probability=0.0",
    "views.jitter_strength=[0.0, 0.0, 0.0]",
    "views.grey_probability=0.0",
)
BASE = ("data.hold_back=3", "evaluation.every_checkpoints=1", "evaluation.manifests={}")


def write_run(folder: Path, config: RunConfig, clip: ClipModel) -> Path:
    """What a run's folder holds when its first checkpoint is evaluated."""
    (folder / "artifacts").mkdir(parents=True)
    (folder / "run_config.yaml").write_text(dump_config(config))
    space = build.build_space(config, clip)
    save_concept_space(space, folder / "artifacts" / "concept_space.safetensors")
    return folder


def read_views(folder: Path) -> tuple[bytes, Any]:
    views = folder / "validation" / "views" / "held_back-views"
    draws = json.loads(views.with_suffix(".json").read_text())["augmentation"]
    return views.with_suffix(".rgb").read_bytes(), draws


@pytest.mark.parametrize("changes", [EASY, ("run.seed=7", "views.local.count=0")])
def test_runs_with_other_augmentation_are_scored_on_the_same_pixels_and_draws(
    build_config: BuildConfig, tiny_clip: ClipModel, tmp_path: Path, changes: tuple[str, ...]
) -> None:
    first = write_run(tmp_path / "first", build_config(*BASE), tiny_clip)
    second = write_run(tmp_path / "second", build_config(*BASE, *changes), tiny_clip)
    for folder in (first, second):
        build_evaluator(folder)
    pixels, draws = read_views(first)
    assert (pixels, draws) == read_views(second)
    assert len(pixels) == 3 * 2 * 2 * 32 * 32 * 3  # videos, views, frames, size, size, colours
    assert len({str(draw) for video in draws for draw in video}) == 3 * 2


def test_views_of_the_scores_are_those_that_the_scores_were_measured_with() -> None:
    """`bench/label_free_selection.py` decodes the demo recipe's own."""
    demo = build.build_recipe(load_config(RECIPE, ["clip.model=local-dir:clip"]))
    scored = build_scoring_views(num_frames=4, size=48)
    assert replace(scored, local_views=demo.local_views) == demo
    assert scored.local_views.count == demo.local_views.count == 0
