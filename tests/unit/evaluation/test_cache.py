"""The feature cache: equal requests find, others do not, damage is seen, strangers are refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from lssl_ray.errors import DataError
from lssl_ray.evaluation import cache as cache_module
from lssl_ray.evaluation.cache import (
    FeatureCache,
    FeatureKey,
    FeatureSet,
    compute_videos_digest,
    join_sets,
)
from lssl_ray.evaluation.features import ViewFeatures
from lssl_ray.evaluation.views import EvaluationView
from lssl_ray.types import ClipFailure
from lssl_ray.video.manifest import build_manifest, load_manifest

KEY = FeatureKey(
    encoder_digest="a" * 64,
    view=EvaluationView(num_frames=8, size=224),
    short_side=512,
    videos_digest="b" * 64,
)
FAILURE = ClipFailure("gone", "/v/gone.mp4", "missing_file", "no such file", 0.1, 0)


def build_set(*ids: str, seed: int = 0) -> FeatureSet:
    generator = torch.Generator().manual_seed(seed)
    joint = torch.randn(len(ids), 2, 4, generator=generator)
    pooled = torch.randn(len(ids), 2, 6, generator=generator)
    return FeatureSet(ids, ViewFeatures(joint=joint, pooled=pooled), (FAILURE,))


def test_cache_gives_back_what_was_saved(tmp_path: Path) -> None:
    saved = build_set("x", "y")
    FeatureCache(tmp_path / "features").save(KEY, saved)
    cache = FeatureCache(tmp_path / "features")
    found = cache.load(KEY)
    assert found is not None and found.features is not None and saved.features is not None
    assert found.video_ids == ("x", "y") and found.failures == (FAILURE,)
    assert torch.equal(found.features.joint, saved.features.joint)
    assert torch.equal(found.features.pooled, saved.features.pooled)
    assert (cache.num_hits, cache.num_damaged) == (1, 0)
    names = sorted(path.name for path in (tmp_path / "features").iterdir())
    assert names == [f"{KEY.name()}.json", f"{KEY.name()}.safetensors"]


def test_cache_no_video_decoded_is_an_entry_too(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.save(KEY, FeatureSet((), None, (FAILURE,)))
    found = cache.load(KEY)
    assert found == FeatureSet((), None, (FAILURE,))


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, encoder_digest="c" * 64),
        replace(KEY, view=EvaluationView(num_frames=8, size=224, num_crops=3)),
        replace(KEY, view=EvaluationView(num_frames=16, size=224)),
        replace(KEY, short_side=256),
        replace(KEY, videos_digest="c" * 64),
    ],
)
def test_cache_another_request_finds_nothing(tmp_path: Path, other: FeatureKey) -> None:
    cache = FeatureCache(tmp_path)
    cache.save(KEY, build_set("x"))
    assert cache.load(other) is None
    assert cache.num_damaged == 0


def test_cache_newer_view_arithmetic_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FeatureCache(tmp_path).save(KEY, build_set("x"))
    monkeypatch.setattr(cache_module, "VIEW_ARITHMETIC_VERSION", 999)
    assert FeatureCache(tmp_path).load(KEY) is None


@pytest.mark.parametrize("damage", ["cut", "bit", "no index", "cut index", "no numbers", "rows"])
def test_cache_damaged_entry_is_counted_and_can_be_made_again(tmp_path: Path, damage: str) -> None:
    cache = FeatureCache(tmp_path)
    cache.save(KEY, build_set("x", "y"))
    numbers, index = (tmp_path / f"{KEY.name()}.{kind}" for kind in ("safetensors", "json"))
    content = numbers.read_bytes()
    if damage == "cut":
        numbers.write_bytes(content[:-8])
    elif damage == "bit":
        numbers.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "no index":
        index.unlink()
    elif damage == "cut index":
        index.write_text(index.read_text()[:40])
    elif damage == "no numbers":
        numbers.unlink()
    else:
        said = json.loads(index.read_text())
        index.write_text(json.dumps(said | {"video_ids": ["x"]}))
    assert cache.load(KEY) is None
    assert (cache.num_hits, cache.num_damaged) == (0, 1)
    cache.save(KEY, build_set("x", "y"))
    assert cache.load(KEY) is not None


def test_cache_features_of_another_model_under_this_name_are_refused(tmp_path: Path) -> None:
    other = replace(KEY, encoder_digest="f" * 64)
    cache = FeatureCache(tmp_path)
    cache.save(other, build_set("x"))
    for kind in ("safetensors", "json"):
        (tmp_path / f"{other.name()}.{kind}").rename(tmp_path / f"{KEY.name()}.{kind}")
    with pytest.raises(DataError, match="another model"):
        cache.load(KEY)


def test_cache_without_folder_keeps_nothing(tmp_path: Path) -> None:
    cache = FeatureCache(None)
    cache.save(KEY, build_set("x"))
    assert cache.load(KEY) is None


def test_compute_videos_digest_sees_files_not_labels_or_folders(videos: tiny.VideoSet) -> None:
    records = load_manifest(str(videos.manifest)).records()

    def digest(**changes: object) -> str:
        changed = [replace(records[0], **changes), *records[1:]]  # type: ignore[arg-type]
        return compute_videos_digest(build_manifest(changed, root="/"))

    base = digest()
    assert digest(label="other", split="val", path="/moved/0.mp4") == base
    for changes in ({"size_bytes": 1}, {"mtime_ns": 1}, {"num_frames": 3}, {"reader": "pyav"}):
        assert digest(**changes) != base
    assert compute_videos_digest(build_manifest(records[::-1], root="/")) != base


def test_join_sets_keeps_what_decoded_for_all() -> None:
    first, second = build_set("w", "x", "y"), build_set("x", "y", "z", seed=1)
    joined, features = join_sets({"a": first, "b": second})
    assert joined.video_ids == ("x", "y") and joined.failures == (FAILURE,)
    assert first.features is not None and second.features is not None
    assert torch.equal(features["a"].joint, first.features.joint[1:])
    assert torch.equal(features["b"].pooled, second.features.pooled[:2])
