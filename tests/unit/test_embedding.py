"""Folders of embeddings: nothing twice, nothing lost, nothing of another model."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from embedding_parts import SOURCE, build_record

from lssl_ray.embedding import EmbedReport, embed_manifest
from lssl_ray.embedding_files import EmbeddedVideo, iterate_parts, locked
from lssl_ray.errors import DataError
from lssl_ray.video.manifest import Manifest, VideoRecord, build_manifest


def build_videos(numbers: Sequence[int]) -> Manifest:
    return build_manifest([build_record(number) for number in numbers], root="/videos")


def compute_row(video_id: str) -> np.ndarray:
    """What the stand-in for a model makes of a video: its id says it all."""
    row = np.random.default_rng(int(video_id[1:3])).normal(size=3)
    return (row / np.linalg.norm(row)).astype(np.float32)


@dataclass
class Encoder:
    """Stands where a model is: remembers what it was asked for, fails where told to."""

    bad: tuple[str, ...] = ()
    stop_after: int | None = None
    asked: list[str] = field(default_factory=list)

    def __call__(self, manifest: Manifest) -> Iterator[EmbeddedVideo]:
        for record in manifest.records():
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(record.video_id)
            if record.video_id in self.bad:
                yield EmbeddedVideo(record, None, "decode_failed", "broken")
            else:
                yield EmbeddedVideo(record, compute_row(record.video_id), None, None)


def embed(out: Path, manifest: Manifest, encoder: Encoder, **options: object) -> EmbedReport:
    arguments: dict[str, object] = {
        "manifest_path": "m.parquet",
        "source": SOURCE,
        "rows_per_part": 4,
    }
    return embed_manifest(manifest, out, encode=encoder, **(arguments | options))  # type: ignore[arg-type]


def read_rows(out: Path) -> dict[str, dict[str, object]]:
    """All rows by id, read as anybody would; none may be there twice."""
    rows = pyarrow.dataset.dataset(out, format="parquet").to_table().to_pylist()
    found = {row["video_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def check_rows(out: Path, numbers: Sequence[int], *, bad: Sequence[str] = ()) -> None:
    rows = read_rows(out)
    assert sorted(rows) == [f"v{number:02d}.mp4" for number in numbers]
    for video_id, row in rows.items():
        if video_id in bad:
            assert row["embedding"] is None and row["reason"] == "decode_failed"
        else:
            np.testing.assert_array_equal(
                np.array(row["embedding"], np.float32), compute_row(video_id)
            )
            assert row["reason"] is None
        number = int(video_id[1:3])
        assert row["label"] == ("a" if number % 2 else None)
        assert row["path"] == f"/videos/{video_id}"


def test_embed_files_a_row_per_video_and_no_remains(tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    encoder = Encoder(bad=("v03.mp4",))
    report = embed(
        tmp_path, build_videos(range(10)), encoder, on_progress=lambda *item: seen.append(item)
    )
    check_rows(tmp_path, range(10), bad=["v03.mp4"])
    assert seen[0][:2] == (1, 10) and seen[-1] == (10, 10, 1)
    assert (report.num_embedded, report.num_known) == (9, 0)
    assert report.bad_by_reason == {"decode_failed": 1}
    names = {path.name for path in tmp_path.iterdir()}
    parts = {f"part-{number:06d}.parquet" for number in range(3)}
    assert names == parts | {"_provenance.json", "_lock"}
    schema = pq.read_schema(tmp_path / "part-000000.parquet")
    assert str(schema.field("embedding").type) == "list<element: float>"


def test_embed_again_after_an_interrupt_does_only_what_is_missing(tmp_path: Path) -> None:
    manifest = build_videos(range(10))
    first = Encoder(stop_after=6)
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path, manifest, first)
    second = Encoder()
    report = embed(tmp_path, manifest, second)
    assert not set(first.asked) & set(second.asked)
    assert report.num_known == len(first.asked) == 6
    check_rows(tmp_path, range(10))
    third = Encoder()
    assert embed(tmp_path, manifest, third).num_known == 10
    assert third.asked == []


def test_embed_again_after_a_part_was_deleted_computes_its_videos(tmp_path: Path) -> None:
    manifest = build_videos(range(10))
    embed(tmp_path, manifest, Encoder())
    (tmp_path / "part-000001.parquet").unlink()
    encoder = Encoder()
    embed(tmp_path, manifest, encoder)
    assert encoder.asked == [f"v{number:02d}.mp4" for number in range(4, 8)]
    check_rows(tmp_path, range(10))


def test_embed_bad_videos_are_tried_again_on_request_only(tmp_path: Path) -> None:
    manifest = build_videos(range(6))
    embed(tmp_path, manifest, Encoder(bad=("v01.mp4", "v05.mp4")))
    idle = Encoder()
    embed(tmp_path, manifest, idle)
    assert idle.asked == []
    again = Encoder(bad=("v05.mp4",))
    embed(tmp_path, manifest, again, retry_bad=True)
    assert again.asked == ["v01.mp4", "v05.mp4"]
    check_rows(tmp_path, range(6), bad=["v05.mp4"])


def test_embed_videos_that_the_index_found_bad_are_rows_and_never_tried(tmp_path: Path) -> None:
    bad = build_record(1, status="bad", reason="not_a_video", detail="is empty", num_frames=0)
    manifest = build_manifest([build_record(0), bad], root="/videos")
    encoder = Encoder()
    report = embed(tmp_path, manifest, encoder)
    assert encoder.asked == ["v00.mp4"]
    assert report.bad_by_reason == {"not_a_video": 1}
    row = read_rows(tmp_path)["v01.mp4"]
    assert (row["reason"], row["detail"], row["embedding"]) == ("not_a_video", "is empty", None)


def test_embed_grown_manifest_adds_and_says_so(tmp_path: Path) -> None:
    embed(tmp_path, build_videos(range(4)), Encoder())
    encoder = Encoder()
    embed(tmp_path, build_videos(range(6)), encoder)
    assert encoder.asked == ["v04.mp4", "v05.mp4"]
    provenance = json.loads((tmp_path / "_provenance.json").read_text())
    assert [item["videos"] for item in provenance["manifests"]] == [4, 6]
    assert provenance["model"]["digest"] == SOURCE.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda records: records[1:],
        lambda records: [replace(records[0], size_bytes=5), *records[1:]],
        lambda records: [replace(records[0], label="b"), *records[1:]],
        lambda records: [*records[:1], replace(records[1], label=None), *records[2:]],
    ],
    ids=["fewer", "other_size", "other_label", "lost_label"],
)
def test_embed_changed_manifest_is_refused_and_nothing_changes(
    tmp_path: Path, change: Callable[[list[VideoRecord]], list[VideoRecord]]
) -> None:
    records = [build_record(number) for number in range(4)]
    embed(tmp_path, build_manifest(records, root="/videos"), Encoder())
    before = (tmp_path / "_provenance.json").read_bytes()
    encoder = Encoder()
    with pytest.raises(DataError, match="1 "):
        embed(tmp_path, build_manifest(change(records), root="/videos"), encoder)
    assert encoder.asked == []
    assert (tmp_path / "_provenance.json").read_bytes() == before
    check_rows(tmp_path, range(4))


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"digest": "e" * 64}, "another|not of"), ({"num_frames": 4}, "num_frames=2")],
)
def test_embed_folder_of_another_model_or_view_is_refused(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    manifest = build_videos(range(2))
    embed(tmp_path, manifest, Encoder())
    with pytest.raises(DataError, match=named):
        embed(tmp_path, manifest, Encoder(), source=replace(SOURCE, **changes))  # type: ignore[arg-type]


def test_embed_folder_in_use_or_damaged_or_foreign_is_refused(tmp_path: Path) -> None:
    manifest = build_videos(range(2))
    used, damaged, foreign = (tmp_path / name for name in ("used", "damaged", "foreign"))
    embed(used, manifest, Encoder())
    with locked(used), pytest.raises(DataError, match="Another run"):
        embed(used, manifest, Encoder())
    embed(damaged, manifest, Encoder())
    part = damaged / "part-000000.parquet"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(DataError, match="part-000000"):
        embed(damaged, manifest, Encoder())
    foreign.mkdir()
    (foreign / "part-000000.parquet").write_bytes((used / "part-000000.parquet").read_bytes())
    with pytest.raises(DataError, match="_provenance"):
        embed(foreign, manifest, Encoder())


def test_iterate_parts_gives_the_good_rows_only(tmp_path: Path) -> None:
    embed(tmp_path, build_videos(range(6)), Encoder(bad=("v00.mp4", "v04.mp4", "v05.mp4")))
    first, second = iterate_parts(tmp_path)
    assert first.video_ids == ["v01.mp4", "v02.mp4", "v03.mp4"]
    assert first.labels == ["a", None, "a"]
    np.testing.assert_array_equal(first.embeddings, [compute_row(v) for v in first.video_ids])
    assert second.video_ids == [] and len(second.embeddings) == 0
