"""Search over embeddings: exact against brute force, through the index, refusals."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from embedding_parts import SOURCE, build_record

from lssl_ray.embedding import embed_manifest
from lssl_ray.embedding_files import EmbeddedVideo
from lssl_ray.errors import ConfigError, DataError
from lssl_ray.search import SearchResult, open_embeddings, search_embeddings
from lssl_ray.video.manifest import Manifest, build_manifest

NUM_VIDEOS, DIM = 60, 8


def draw_rows(count: int, *, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


ROWS = draw_rows(NUM_VIDEOS, seed=0)
ROWS[7] = ROWS[31] = ROWS[50]  # equal ones, in three parts
BAD = 11


def write_embeddings(out: Path, *, count: int = NUM_VIDEOS, bad: tuple[int, ...] = (BAD,)) -> Path:
    def encode(manifest: Manifest) -> Iterator[EmbeddedVideo]:
        for record in manifest.records():
            number = int(record.video_id[1:3])
            if number in bad:
                yield EmbeddedVideo(record, None, "decode_failed", "broken")
            else:
                yield EmbeddedVideo(record, ROWS[number], None, None)

    manifest = build_manifest([build_record(number) for number in range(count)], root="/videos")
    embed_manifest(manifest, out, manifest_path="m", source=SOURCE, encode=encode, rows_per_part=17)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embeddings(tmp_path_factory.mktemp("embeddings"))


def rank_by_brute_force(query: np.ndarray) -> list[tuple[str, float]]:
    pairs = [
        (f"v{number:02d}.mp4", float(ROWS[number].astype(np.float64) @ query.astype(np.float64)))
        for number in range(NUM_VIDEOS)
        if number != BAD
    ]
    return sorted(pairs, key=lambda pair: -pair[1])


def check_hits(result: SearchResult, expected: list[tuple[str, float]]) -> None:
    assert [hit.video_id for hit in result.hits] == [name for name, _ in expected]
    np.testing.assert_allclose(
        [hit.score for hit in result.hits], [score for _, score in expected], atol=1e-6
    )


@pytest.mark.parametrize("top_k", [1, 10, 59, 100])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_search_exact_equals_brute_force(folder: Path, top_k: int, seed: int) -> None:
    query = draw_rows(1, seed=seed)[0]
    result = search_embeddings(folder, torch.from_numpy(query), top_k=top_k)
    expected = rank_by_brute_force(query)[:top_k]
    names = [name for name, _ in expected]
    if not {"v07.mp4", "v31.mp4", "v50.mp4"} & set(names):
        check_hits(result, expected)
    np.testing.assert_allclose(
        [hit.score for hit in result.hits], [score for _, score in expected], atol=1e-6
    )
    assert (result.method, result.note, result.num_videos) == ("exact", None, NUM_VIDEOS - 1)
    assert len({hit.video_id for hit in result.hits}) == len(result.hits) == min(top_k, 59)


def test_search_equal_scores_come_by_id_whatever_their_part(folder: Path) -> None:
    query = torch.from_numpy(ROWS[7])
    for top_k, names in ((2, ["v07", "v31"]), (3, ["v07", "v31", "v50"])):
        hits = search_embeddings(folder, query, top_k=top_k).hits
        assert [hit.video_id for hit in hits] == [f"{name}.mp4" for name in names]
        assert hits[0].score == pytest.approx(1.0, abs=1e-6)
        assert (hits[0].path, hits[0].label) == ("/videos/v07.mp4", "a")


def test_search_like_a_video_leaves_that_video_out(folder: Path) -> None:
    query = torch.from_numpy(ROWS[20])
    all_hits = search_embeddings(folder, query, top_k=4).hits
    others = search_embeddings(folder, query, top_k=3, without_path="/videos/v20.mp4").hits
    assert all_hits[0].video_id == "v20.mp4"
    assert others == all_hits[1:]


def test_search_index_finds_what_the_exact_way_finds(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="lssl_ray[search] is not installed")
    folder = write_embeddings(tmp_path)
    for seed in range(5):
        query = torch.from_numpy(draw_rows(1, seed=10 + seed)[0])
        exact = search_embeddings(folder, query, top_k=5)
        index = search_embeddings(folder, query, top_k=5, method="index")
        assert index.method == "index" and index.num_videos == exact.num_videos
        check_hits(index, [(hit.video_id, hit.score) for hit in exact.hits])
        assert [hit.path for hit in index.hits] == [hit.path for hit in exact.hits]


def test_search_index_is_made_once_and_anew_when_the_parts_change(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="lssl_ray[search] is not installed")
    folder = write_embeddings(tmp_path, count=40)
    query = torch.from_numpy(ROWS[45])

    def search_and_list() -> tuple[SearchResult, dict[str, int]]:
        result = search_embeddings(folder, query, top_k=1, method="index")
        return result, {p.name: p.stat().st_mtime_ns for p in folder.glob("_index*")}

    before, files = search_and_list()
    assert before.num_videos == 39 and before.hits[0].video_id != "v45.mp4"
    assert len(files) == 2 and search_and_list()[1] == files
    write_embeddings(tmp_path, count=NUM_VIDEOS)
    after, new_files = search_and_list()
    assert after.num_videos == 59 and after.hits[0].video_id == "v45.mp4"
    assert len(new_files) == 2 and not set(files) & set(new_files)


def test_search_auto_takes_the_index_when_large(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss", reason="lssl_ray[search] is not installed")
    monkeypatch.setattr("lssl_ray.search.INDEX_FROM", NUM_VIDEOS)
    query = torch.from_numpy(ROWS[3])
    large = write_embeddings(tmp_path / "large")
    assert search_embeddings(large, query, top_k=1).method == "index"
    small = write_embeddings(tmp_path / "small", count=NUM_VIDEOS - 1)
    assert search_embeddings(small, query, top_k=1).method == "exact"


def test_search_of_another_models_embeddings_is_refused(folder: Path) -> None:
    assert open_embeddings(folder, digest=SOURCE.digest)["model"]["name"] == "tiny"
    with pytest.raises(DataError, match="runs/tiny"):
        open_embeddings(folder, digest="e" * 64)


def test_search_of_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lssl-ray embed"):
        open_embeddings(tmp_path, digest=SOURCE.digest)
    empty = write_embeddings(tmp_path / "empty", count=3, bad=(0, 1, 2))
    query = torch.from_numpy(ROWS[0])
    with pytest.raises(DataError, match="reason"):
        search_embeddings(empty, query, top_k=1)
    with pytest.raises(ConfigError, match="top_k=0"):
        search_embeddings(folder, query, top_k=0)
