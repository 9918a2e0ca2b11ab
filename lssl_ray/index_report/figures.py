"""What an index report says, as figures: counted in Arrow columns and ready for JSON.

A million rows are no trouble; a row becomes Python objects only as an example of a problem.
Not here: how it looks (`page`).
"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lssl_ray import __version__
from lssl_ray.video.index import IndexReport
from lssl_ray.video.manifest import Manifest

__all__ = ["compute_index_figures"]

REPORT_VERSION = 1
NUM_EXAMPLES = 20
NUM_BINS = 32
MAX_DISTINCT_BARS = 10  # up to so many different values get a bar each: 24, 25, 30 frames/s
LOG_RATIO = 50.0  # of largest to smallest value, above which the axis is logarithmic


def compute_index_figures(manifest: Manifest, report: IndexReport) -> dict[str, Any]:
    """Everything the report says, as what JSON can hold.

    Args:
        manifest: See `write_index_report`.
        report: See `write_index_report`.

    Returns:
        Counts by name; `histograms` by column, each with `edges` and `counts`, or with `values`
        and `counts` where few values are different; examples as lists of `path` and `detail`.
    """
    table = manifest.table
    is_usable = pc.equal(table["status"], "ok")
    usable, bad = table.filter(is_usable), table.filter(pc.invert(is_usable))
    shortened = usable.filter(pc.is_valid(usable["detail"]))
    frame_sides = pc.min_element_wise(usable["width"], usable["height"])
    return {
        "report_version": REPORT_VERSION,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "created_by": f"lssl_ray {__version__}",
        "root": manifest.root,
        "num_files": table.num_rows,
        "num_ok": usable.num_rows,
        "num_bad": bad.num_rows,
        "hours": (pc.sum(usable["duration_seconds"]).as_py() or 0.0) / 3600.0,
        "num_frames": pc.sum(usable["num_frames"]).as_py() or 0,
        "size_bytes": pc.sum(table["size_bytes"]).as_py() or 0,
        "histograms": {
            "duration_seconds": _compute_histogram(usable["duration_seconds"]),
            "short_side": _compute_histogram(frame_sides),
            "fps": _compute_histogram(pc.round(usable["fps"], ndigits=2)),
            "size_bytes": _compute_histogram(usable["size_bytes"]),
        },
        "frame_sizes": _count_frame_sizes(usable),
        "codecs": _count_values(usable["codec"]),
        "readers": _count_values(usable["reader"]),
        "splits": _count_values(usable["split"]),
        "problems": [
            {
                "reason": reason,
                "count": count,
                "examples": _list_examples(bad.filter(pc.equal(bad["reason"], reason))),
            }
            for reason, count in _count_values(bad["reason"]).items()
        ],
        "shortened": {"count": shortened.num_rows, "examples": _list_examples(shortened)},
        "labels": _describe_labels(table["label"], usable["label"]),
        "indexing": asdict(report),
    }


def _compute_histogram(column: pa.ChunkedArray) -> dict[str, Any] | None:
    """Bars of a column, with its median and range; None for an empty one."""
    values = column.to_numpy().astype(np.float64)
    if values.size == 0:
        return None
    low, high = float(values.min()), float(values.max())
    summary = {"min": low, "median": float(np.median(values)), "max": high}
    distinct, counts = np.unique(values, return_counts=True)
    if distinct.size <= MAX_DISTINCT_BARS:
        return summary | {"values": distinct.tolist(), "counts": counts.tolist()}
    is_log = low > 0.0 and high / low > LOG_RATIO
    space: Callable[..., npt.NDArray[np.float64]] = np.geomspace if is_log else np.linspace
    counts, edges = np.histogram(values, bins=space(low, high, NUM_BINS + 1))
    scale = "log" if is_log else "linear"
    return summary | {"scale": scale, "edges": edges.tolist(), "counts": counts.tolist()}


def _count_values(column: pa.ChunkedArray) -> dict[str, int]:
    """Count by value, most frequent first; nulls and blanks are left out."""
    rows = pc.value_counts(column.combine_chunks())
    pairs = zip(rows.field("values").to_pylist(), rows.field("counts").to_pylist(), strict=True)
    return dict(sorted(((v, n) for v, n in pairs if v), key=lambda pair: (-pair[1], pair[0])))


def _count_frame_sizes(usable: pa.Table) -> dict[str, int]:
    groups = usable.group_by(["width", "height"]).aggregate([([], "count_all")])
    rows = sorted(groups.to_pylist(), key=lambda row: -row["count_all"])
    return {f"{row['width']} x {row['height']}": row["count_all"] for row in rows}


def _list_examples(rows: pa.Table) -> list[dict[str, Any]]:
    examples: list[dict[str, Any]] = rows.select(["path", "detail"])[:NUM_EXAMPLES].to_pylist()
    return examples


def _describe_labels(everywhere: pa.ChunkedArray, usable: pa.ChunkedArray) -> dict[str, Any]:
    """How evenly usable videos are spread; a label whose videos are all bad counts 0."""
    counts = _count_values(usable)
    counts |= {label: 0 for label in sorted(_count_values(everywhere)) if label not in counts}
    sizes = list(counts.values())
    return {
        "num_labels": len(counts),
        "num_unlabelled": everywhere.null_count,
        "median": float(np.median(sizes)) if sizes else 0.0,
        "num_usable_videos": counts,
    }
