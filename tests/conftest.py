"""Fixtures for all tests: tiny CLIP, tiny videos, a run's configuration; a clean random state.

What they are made of is in `tiny.py`.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import tiny
import torch
import yaml
from hypothesis import settings

from lssl_ray.config import RunConfig
from lssl_ray.model.clip import ClipModel, load_clip

# The models are tiny: a second thread costs more than it does.
torch.set_num_threads(1)
settings.register_profile("fixed", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def _keep_process_state() -> Iterator[None]:
    """No test leaves its seeds, thread count or default dtype to the next."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """Switches the annotations' checks off, to reach the checks that users meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def tiny_clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny CLIP as open_clip's local folder."""
    return tiny.write_tiny_clip(tmp_path_factory.mktemp("tiny_clip"))


@pytest.fixture(scope="session")
def tiny_clip(tiny_clip_dir: Path) -> ClipModel:
    """The same, loaded; read only."""
    return load_clip(f"local-dir:{tiny_clip_dir}", weights=None)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tiny.VideoSet:
    """Eight indexed H.264 videos with labels; read only: who damages some writes their own."""
    return tiny.write_video_set(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def trained_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> Path:
    """A finished run whose teacher is far from CLIP and attends over time; read only."""
    folder = tmp_path_factory.mktemp("trained")
    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=folder / "runs")
    return tiny.train_run(values, folder)


@pytest.fixture
def build_config(
    tiny_clip_dir: Path, videos: tiny.VideoSet, tmp_path: Path
) -> Callable[..., RunConfig]:
    """Builds the smallest run's configuration: `build_config("optim.epochs=1", ...)`."""

    def build(*overrides: str) -> RunConfig:
        values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=tmp_path / "runs")
        return tiny.build_run_config(values, overrides)

    return build


@pytest.fixture
def recipe_file(tiny_clip_dir: Path, videos: tiny.VideoSet, tmp_path: Path) -> Path:
    """The smallest run's recipe as a YAML file; its runs go to `tmp_path / "runs"`."""
    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=tmp_path / "runs")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path
