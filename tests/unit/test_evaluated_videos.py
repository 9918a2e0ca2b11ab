"""What an evaluation says that training knew of its videos: held-back ones it never saw."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import tiny

from lssl_ray import build
from lssl_ray.config import RunConfig
from lssl_ray.evaluating.request import EvaluationRequest
from lssl_ray.evaluating.sources import EvaluatedModel
from lssl_ray.evaluating.videos import prepare_videos
from lssl_ray.model.clip import ClipModel
from lssl_ray.video.held_back import split_held_back
from lssl_ray.video.manifest import Manifest, load_manifest, save_manifest

BuildConfig = Callable[..., RunConfig]


@pytest.fixture
def manifest(videos: tiny.VideoSet, tmp_path: Path) -> Path:
    """All eight videos, the first one bad; sizes tell them apart, as names don't."""
    known = load_manifest(str(videos.manifest))
    table = known.table
    changes = {
        "size_bytes": list(range(1000, 1000 + len(known))),
        "status": ["bad", *table["status"].to_pylist()[1:]],
    }
    for name, values in changes.items():
        place = table.schema.get_field_index(name)
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(values, type=field.type))
    path = tmp_path / "training.parquet"
    save_manifest(Manifest(table, root=known.root), str(path))
    return path


def count_seen(config: RunConfig, clip: ClipModel, path: Path) -> int:
    model = EvaluatedModel(
        title="a run",
        config=config,
        clip=clip,
        space=build.build_space(config, clip),
        folder=None,
        checkpoint=None,
        step=1,
    )
    found = prepare_videos(EvaluationRequest(model="run", manifests=(path,)), model)
    assert found.transduction is not None
    return found.transduction.num_shared_videos


def write_part(manifest: Path, path: Path, rows: Sequence[int]) -> Path:
    whole = load_manifest(str(manifest))
    save_manifest(Manifest(whole.table.take(list(rows)), root=whole.root), str(path))
    return path


def test_held_back_videos_count_as_unseen_and_all_others_as_seen(
    build_config: BuildConfig, tiny_clip: ClipModel, manifest: Path, tmp_path: Path
) -> None:
    config = build_config(f"data.manifest={manifest}", "data.hold_back=3")
    whole = load_manifest(str(manifest))
    _, held_back = split_held_back(whole.usable(), num_held_back=3)
    ids = whole.table["video_id"].to_pylist()
    unseen = [ids.index(one) for one in held_back.table["video_id"].to_pylist()]
    seen = [row for row in range(1, len(ids)) if row not in unseen]
    for rows, expected in ((unseen, 0), (seen, 4), (range(1, 8), 4)):
        part = write_part(manifest, tmp_path / "part.parquet", rows)
        assert count_seen(config, tiny_clip, part) == expected


def test_without_held_back_videos_all_usable_ones_count_as_seen(
    build_config: BuildConfig, tiny_clip: ClipModel, manifest: Path
) -> None:
    assert count_seen(build_config(f"data.manifest={manifest}"), tiny_clip, manifest) == 7
