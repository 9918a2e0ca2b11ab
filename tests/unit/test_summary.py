"""What summary.json says of a whole run, from its journal."""

import json
from collections.abc import Callable
from pathlib import Path

from lssl_ray.config import RunConfig
from lssl_ray.summary import build_summary
from lssl_ray.types import Progress


def test_build_summary_adds_up_the_journal(
    build_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    rows = [
        {"step": 1, "data/reader_fallbacks": 3.0},  # of a release that did not file the workers
        {"step": 2, "data/reader_fallbacks": 0.0, "cluster/num_workers": 2},
        {"step": 3, "data/reader_fallbacks": 0.0, "cluster/num_workers": 1},
    ]
    # Rows of validation come later than those of the steps after it.
    rows += [
        {"step": 4, "data/reader_fallbacks": 2.0, "cluster/num_workers": 2},
        {"step": 2, "validation/val/knn": 0.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bad = [
        {"step": 0, "stage": "index"},
        {"step": 1, "stage": "train"},
        {"step": 2, "stage": "train"},
    ]
    (tmp_path / "quarantine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad))
    summary = build_summary(
        build_config(),
        Progress(step=4, clips_trained=14, clips_failed=2, train_seconds=7.0),
        num_steps=8,
        num_videos=8,
        manifest_digest="m",
        clip_digest="c",
        results={},
        quarantine=tmp_path / "quarantine.jsonl",
        metrics=tmp_path / "metrics.jsonl",
        num_tracking_failures=0,
    )
    assert summary["reader_fallbacks"] == 5
    assert (summary["num_workers"], summary["num_workers_seen"]) == (1, [1, 2])
    assert summary["quarantined"] == {"total": 3, "index": 1, "train": 2}
    assert (summary["finished"], summary["clips_per_second"]) == (False, 2.0)
