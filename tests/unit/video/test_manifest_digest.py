"""A manifest's digest, ids and selections at sizes that don't fit into Python objects."""

import hashlib
from dataclasses import replace

import pyarrow as pa
import pytest

from lssl_ray.video import manifest as manifest_module
from lssl_ray.video.digest import DIGEST_COLUMNS, ROWS_PER_PIECE
from lssl_ray.video.manifest import (
    ROWS_PER_BATCH,
    Manifest,
    VideoRecord,
    build_manifest,
    find_repeated,
)

RECORD = VideoRecord(
    video_id="a.mp4",
    path="/videos/a.mp4",
    label="one",
    split="train",
    status="ok",
    reason=None,
    detail=None,
    num_frames=16,
    fps=8.0,
    duration_seconds=2.0,
    width=96,
    height=64,
    codec="h264",
    rotation=0,
    reader="decord",
    size_bytes=1000,
    mtime_ns=1,
)


def build_rows(count: int) -> Manifest:
    """Rows with missing labels, other alphabets and bad videos among them."""
    return build_manifest(
        (
            replace(
                RECORD,
                video_id=f"\u00e9t\u00e9/{number}",
                label=None if number % 3 == 0 else "\u8d70\u308b",
                split=None if number % 5 == 0 else "train",
                status="bad" if number % 7 == 0 else "ok",
                num_frames=number,
            )
            for number in range(count)
        ),
        root="/videos",
    )


def compute_digest_plainly(manifest: Manifest) -> str:
    """The definition, a row at a time."""
    state = hashlib.sha256(b"lssl_ray.manifest 1\n")
    for record in manifest.records():
        values = [getattr(record, name) for name in DIGEST_COLUMNS]
        cells = ["\x00" if value is None else str(value) for value in values]
        state.update(("\x1f".join(cells) + "\x1e").encode())
    return state.hexdigest()


@pytest.mark.parametrize("count", [0, 1, 100, ROWS_PER_PIECE + 3])
def test_digest_is_that_of_the_definition(count: int) -> None:
    manifest = build_rows(count)
    assert manifest.digest() == compute_digest_plainly(manifest)


def test_digest_of_selections_and_slices_is_that_of_the_definition() -> None:
    manifest = build_rows(200)
    chunked = Manifest(manifest.table.slice(3, 90), root="/")
    for selection in (manifest.usable(), manifest.where(split="train"), manifest.bad(), chunked):
        assert selection.digest() == compute_digest_plainly(selection)


def test_bad_and_usable_videos_are_all_there_are() -> None:
    manifest = build_rows(50)
    bad = [record.video_id for record in manifest.bad().records()]
    assert bad == [record.video_id for record in manifest.records() if record.status == "bad"]
    assert len(bad) + len(manifest.usable()) == 50


def test_selection_of_all_rows_is_no_copy() -> None:
    usable = build_rows(50).usable()
    assert usable.usable().table is usable.table
    with_split = usable.where(split="train")
    assert len(with_split) < len(usable)  # rows without a split are not in it
    assert with_split.where(split="train").table is with_split.table


def test_repeated_text_is_found_wherever_its_copies_are() -> None:
    texts = [f"{number}.mp4" for number in range(3 * ROWS_PER_BATCH)]
    assert find_repeated(pa.chunked_array([texts[:5000], [], texts[5000:]])) is None
    far = [*texts, "7.mp4"]
    assert find_repeated(pa.chunked_array([far[:5000], far[5000:]])) == "7.mp4"
    assert find_repeated(pa.chunked_array([["a", "b", "b"]])) == "b"
    assert find_repeated(pa.chunked_array([[]], type=pa.string())) is None


def test_texts_that_share_a_hash_only_are_not_taken_for_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(manifest_module, "hash", len, raising=False)
    assert find_repeated(pa.chunked_array([["aa", "bb", "c", "dd"]])) is None
    assert find_repeated(pa.chunked_array([["aa", "bb", "c", "bb"]])) == "bb"
