"""The cache of built spaces: found by content alone, never served to another CLIP."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lssl_ray.concepts.cache import CachedSpace, build_cached_space, find_cache_folder
from lssl_ray.concepts.space import load_concept_space
from lssl_ray.concepts.vocabulary import Vocabulary
from lssl_ray.errors import DataError
from lssl_ray.model.clip import ClipModel

VOCABULARY = Vocabulary(
    labels=("archery", "bowling"), descriptions=(("a bow", "an arrow"), ("a ball", "a lane"))
)
SETTINGS: dict[str, Any] = {
    "layout": "pooled",
    "templates": ("{}", "a {}"),
    "description_templates": ("{}.",),
}


def build(
    clip: ClipModel, folder: Path, vocabulary: Vocabulary = VOCABULARY, **settings: Any
) -> CachedSpace:
    return build_cached_space(vocabulary, clip, folder=folder, **(SETTINGS | settings))


def refuse_texts(tokens: Tensor) -> Tensor:
    raise AssertionError("embedded again")


def test_cache_second_request_embeds_nothing_and_is_equal(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    first = build(tiny_clip, tmp_path / "new")
    # The same weights, reached by another path, which can't embed any more.
    moved = replace(tiny_clip, name="local-dir:elsewhere", encode_text=refuse_texts)
    second = build(moved, tmp_path / "new")
    assert (first.is_hit, second.is_hit) == (False, True)
    assert first.path == second.path
    assert second.space.clip_name == "local-dir:elsewhere"
    assert torch.equal(first.space.categories, second.space.categories)
    assert first.space.descriptions is not None and second.space.descriptions is not None
    assert torch.equal(first.space.descriptions, second.space.descriptions)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [first.path.name]


CHANGED: list[dict[str, Any]] = [
    {"layout": "full"},
    {"templates": ("{}",)},
    {"templates": ("a {}", "{}")},
    {"description_templates": ("{}",)},
    {"vocabulary": replace(VOCABULARY, labels=("archery", "fencing"))},
    {"vocabulary": replace(VOCABULARY, labels=VOCABULARY.labels[::-1])},
    {"vocabulary": replace(VOCABULARY, descriptions=(("a bow",), ("an arrow", "a ball")))},
]


@pytest.mark.parametrize("changed", CHANGED, ids=lambda changed: str(changed)[:40])
def test_cache_misses_when_anything_that_counts_changes(
    tiny_clip: ClipModel, tmp_path: Path, changed: dict[str, Any]
) -> None:
    first = build(tiny_clip, tmp_path)
    other = build(tiny_clip, tmp_path, **changed)
    assert not other.is_hit and other.path != first.path
    assert build(tiny_clip, tmp_path).is_hit


def test_cache_misses_for_other_weights(tiny_clip: ClipModel, tmp_path: Path) -> None:
    build(tiny_clip, tmp_path)
    assert not build(replace(tiny_clip, digest="0" * 64), tmp_path).is_hit


def test_cache_hits_whoever_wrote_the_same_labels(tiny_clip: ClipModel, tmp_path: Path) -> None:
    build(tiny_clip, tmp_path)
    assert build(tiny_clip, tmp_path, replace(VOCABULARY, provenance={"by": "me"})).is_hit


def test_cache_damaged_entry_is_refused_by_name(tiny_clip: ClipModel, tmp_path: Path) -> None:
    path = build(tiny_clip, tmp_path).path
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=path.name):
        build(tiny_clip, tmp_path)


def test_cache_full_layout_keeps_its_link(tiny_clip: ClipModel, tmp_path: Path) -> None:
    build(tiny_clip, tmp_path, layout="full")
    space = build(tiny_clip, tmp_path, layout="full").space
    assert space.link is not None and space.descriptions is not None
    assert space.link.tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert space.descriptions.shape[0] == 4


def test_build_tells_progress_up_to_all_prompts(tiny_clip: ClipModel, tmp_path: Path) -> None:
    labels = tuple(f"action {number}" for number in range(150))
    texts: Sequence[tuple[str, ...]] = [(f"thing {number}",) for number in range(150)]
    told: list[tuple[int, int]] = []
    build(
        tiny_clip,
        tmp_path,
        Vocabulary(labels=labels, descriptions=tuple(texts)),
        on_progress=lambda done, total: told.append((done, total)),
    )
    # 150 labels by 2 templates, then 150 descriptions by 1, in batches of at most 256.
    assert told == [(256, 450), (300, 450), (450, 450)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("/somewhere", "/somewhere"), ("", "HOME/.cache"), ("relative", "HOME/.cache")],
)
def test_cache_folder_follows_xdg(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    base = expected.replace("HOME", str(tmp_path))
    assert find_cache_folder() == Path(base, "lssl_ray", "concept_spaces")


def test_space_file_is_written_whole_or_not_at_all(tiny_clip: ClipModel, tmp_path: Path) -> None:
    path = build(tiny_clip, tmp_path).path
    assert load_concept_space(path, clip_digest=tiny_clip.digest).labels == VOCABULARY.labels
    assert list(tmp_path.iterdir()) == [path]
