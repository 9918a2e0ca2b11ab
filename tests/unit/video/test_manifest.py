"""The manifest's file format, selections and identity."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from video_records import build_record

from lssl_ray.errors import DataError
from lssl_ray.video.manifest import (
    MANIFEST_VERSION,
    Manifest,
    build_manifest,
    load_manifest,
    save_manifest,
)
from lssl_ray.video.probing import PROBING_VERSION

RECORD = build_record(
    "wave/a.avi",
    label="wave",
    split="train",
    fps=29.97,
    rotation=90,
    mtime_ns=1795192296046918875,
)
BAD = replace(
    RECORD, video_id="b.mp4", status="bad", reason="missing", detail="gone", label=None, split=None
)
TEST = replace(RECORD, video_id="c.mp4", split="test", label="run")


@pytest.fixture
def manifest() -> Manifest:
    return build_manifest([RECORD, BAD, TEST], root="/data")


def test_manifest_saved_and_loaded_is_equal(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "manifest.parquet"
    save_manifest(manifest, str(path))
    loaded = load_manifest(str(path))
    assert loaded.records() == [RECORD, BAD, TEST]
    assert (loaded.root, loaded.digest()) == ("/data", manifest.digest())
    assert [file.name for file in path.parent.iterdir()] == ["manifest.parquet"]


def test_save_manifest_failure_leaves_nothing_behind(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    save_manifest(manifest, str(path))
    before = path.read_bytes()
    blocked = tmp_path / "folder"
    blocked.mkdir()
    with pytest.raises(DataError, match="can't be written"):
        save_manifest(manifest, str(blocked))
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "manifest.parquet"]


def test_manifest_selections_keep_only_what_they_say(manifest: Manifest) -> None:
    assert len(manifest) == 3
    assert manifest.usable().records() == [RECORD, TEST]
    assert manifest.where(split="test").records() == [TEST]
    assert manifest.usable().where(split="train").row(0) == RECORD
    assert manifest.labels() == ["run", "wave"]


def test_manifest_unknown_split_lists_the_known(manifest: Manifest) -> None:
    with pytest.raises(DataError, match=r"split='val'.*test, train"):
        manifest.where(split="val")


@pytest.mark.parametrize("index", [-1, 3])
def test_manifest_row_out_of_range_raises(manifest: Manifest, index: int) -> None:
    with pytest.raises(IndexError):
        manifest.row(index)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"path": "/moved/wave/a.avi", "mtime_ns": 5}, True),
        ({"detail": "other words"}, True),
        ({"video_id": "wave/b.avi"}, False),
        ({"size_bytes": 1}, False),
        ({"num_frames": 70}, False),
        ({"label": None}, False),
        ({"label": ""}, False),
        ({"split": "test"}, False),
        ({"status": "bad"}, False),
        ({"reader": "pyav"}, False),
    ],
)
def test_digest_changes_with_what_training_sees(change: dict[str, object], same: bool) -> None:
    first = build_manifest([RECORD, TEST], root="/data")
    second = build_manifest([replace(RECORD, **change), TEST], root="/x")  # type: ignore[arg-type]
    assert (first.digest() == second.digest()) == same


def test_digest_depends_on_the_order_of_rows() -> None:
    first = build_manifest([RECORD, TEST], root="/")
    assert first.digest() != build_manifest([TEST, RECORD], root="/").digest()


def test_digest_of_a_selection_equals_that_of_its_rows(manifest: Manifest) -> None:
    assert manifest.usable().digest() == build_manifest([RECORD, TEST], root="/").digest()


def test_build_manifest_repeated_id_raises() -> None:
    with pytest.raises(DataError, match=r"'c\.mp4' appears more than once"):
        build_manifest([RECORD, TEST, TEST], root="/data")


def test_load_manifest_tells_the_probing_version_and_none_is_the_oldest(
    manifest: Manifest, tmp_path: Path
) -> None:
    path = str(tmp_path / "m.parquet")
    for version in (PROBING_VERSION, 0):
        save_manifest(replace(manifest, probing_version=version).usable(), path)
        assert load_manifest(path).probing_version == version
    _write(tmp_path / "m.parquet", manifest.table, version=MANIFEST_VERSION, root="/data")
    assert load_manifest(path).probing_version == 0


def _write(path: Path, table: pa.Table, **metadata: object) -> None:
    packed = {b"lssl_ray.manifest": json.dumps(metadata).encode()} if metadata else None
    pq.write_table(table.replace_schema_metadata(packed), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("absent", "no such manifest"),
        ("folder", "no such manifest"),
        ("empty file", "not a Parquet file"),
        ("text", "not a Parquet file"),
        ("no metadata", "not a manifest"),
        ("version", "version 2; .* reads version 1"),
        ("column", "lacks the columns fps"),
        ("type", "wrong type"),
        ("rows", "no rows"),
    ],
)
def test_load_manifest_damaged_file_says_what_to_do(
    manifest: Manifest, tmp_path: Path, damage: str, message: str
) -> None:
    path = tmp_path / "manifest.parquet"
    table = manifest.table
    words = pa.array(["a", "b", "c"])
    if damage == "folder":
        path.mkdir()
    elif damage in ("empty file", "text"):
        path.write_text("" if damage == "empty file" else "path,label\n" * 100)
    elif damage == "no metadata":
        _write(path, table)
    elif damage == "version":
        _write(path, table, version=MANIFEST_VERSION + 1, root="/data")
    elif damage == "column":
        _write(path, table.drop_columns(["fps"]), version=MANIFEST_VERSION, root="/data")
    elif damage == "type":
        column = table.schema.get_field_index("fps")
        wrong = table.set_column(column, "fps", words)
        _write(path, wrong, version=MANIFEST_VERSION, root="/data")
    elif damage == "rows":
        _write(path, table.slice(0, 0), version=MANIFEST_VERSION, root="/data")
    with pytest.raises(DataError, match=message) as caught:
        load_manifest(str(path))
    assert "`lssl-ray data index" in str(caught.value)
