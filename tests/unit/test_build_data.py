"""Which of a manifest's videos a run is about."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from lssl_ray.build import load_training_manifest
from lssl_ray.config import RunConfig
from lssl_ray.errors import DataError
from lssl_ray.video.manifest import build_manifest, load_manifest, save_manifest


@pytest.fixture
def two_splits(videos: tiny.VideoSet, tmp_path: Path) -> Path:
    """The videos, every other one in `val`, the rest in `train`."""
    records = [
        replace(record, split=("train", "val")[number % 2])
        for number, record in enumerate(load_manifest(str(videos.manifest)).records())
    ]
    path = tmp_path / "splits.parquet"
    save_manifest(build_manifest(records, root="/"), str(path))
    return path


def test_load_training_manifest_of_a_split_leaves_the_others_out(
    build_config: Callable[..., RunConfig], two_splits: Path
) -> None:
    everything = load_training_manifest(build_config(f"data.manifest={two_splits}"))
    train = load_training_manifest(build_config(f"data.manifest={two_splits}", "data.split=train"))

    assert [record.split for record in train.records()] == ["train"] * 4
    assert len(everything) == 8


def test_load_training_manifest_unknown_split_is_refused_with_the_known_ones(
    build_config: Callable[..., RunConfig], two_splits: Path
) -> None:
    with pytest.raises(DataError, match="train, val"):
        load_training_manifest(build_config(f"data.manifest={two_splits}", "data.split=test"))
