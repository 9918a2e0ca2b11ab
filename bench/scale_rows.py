"""Synthetic manifests for `scale_simulation.py`: ids and paths as long as real ones."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lssl_ray.video.manifest import VideoRecord, build_manifest, save_manifest

ROWS_PER_GROUP = 2**20
# Every so many rows one is bad: `usable` must then copy, as it does for real collections.
BAD_EVERY = 1000


def build_rows(start: int, stop: int) -> pa.Table:
    """Synthetic manifest rows [start, stop): ids and paths as long as real ones."""
    numbers = np.arange(start, stop, dtype=np.int64)
    digits = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), 9, "0")
    labels = pc.cast(pa.array(numbers % 400), pa.string())
    ids = pc.binary_join_element_wise("class_", labels, "/video_", digits, ".mp4", "")
    is_bad = pa.array(numbers % BAD_EVERY == BAD_EVERY - 1)
    length = pa.array(200 + numbers % 200)
    count = len(numbers)
    columns = {
        "video_id": ids,
        "path": pc.binary_join_element_wise("/shared/videos/collection/", ids, ""),
        "label": pc.binary_join_element_wise("class_", labels, ""),
        "split": pa.repeat(pa.scalar("train"), count),
        "status": pc.if_else(is_bad, "bad", "ok"),
        "reason": pc.if_else(is_bad, "decode_failed", pa.scalar(None, pa.string())),
        "detail": pa.nulls(count, pa.string()),
        "num_frames": length,
        "fps": pa.repeat(30.0, count),
        "duration_seconds": pc.divide(pc.cast(length, pa.float64()), 30.0),
        "width": pa.repeat(pa.scalar(340, pa.int32()), count),
        "height": pa.repeat(pa.scalar(256, pa.int32()), count),
        "codec": pa.repeat(pa.scalar("h264"), count),
        "rotation": pa.repeat(pa.scalar(0, pa.int32()), count),
        "reader": pa.repeat(pa.scalar("decord"), count),
        "size_bytes": pa.array(10**6 + numbers % 10**5),
        "mtime_ns": pa.array(1_700_000_000_000_000_000 + numbers),
    }
    return pa.table(columns)


def write_synthetic_manifest(path: Path, *, num_rows: int) -> None:
    """A manifest of that many rows, a row group at a time."""
    record = VideoRecord(
        "a", "/a", None, None, "ok", None, None, 1, 1.0, 1.0, 1, 1, "", 0, "decord", 1, 1
    )
    save_manifest(build_manifest([record], root="/shared/videos"), str(path))
    schema = pq.read_schema(path)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, num_rows, ROWS_PER_GROUP):
            rows = build_rows(start, min(start + ROWS_PER_GROUP, num_rows))
            writer.write_table(rows.cast(schema))
