"""Which videos of a manifest a run trains on: the usable ones that are not held back.

A run that goes on must find the same videos in the same order: a position stands for one of them.
"""

import json
from pathlib import Path

from lssl_ray.errors import CheckpointError, DataError
from lssl_ray.tracking.journal import METRICS_FILE, QUARANTINE_FILE, Journal, read_rows
from lssl_ray.training.checkpoint import list_checkpoints
from lssl_ray.video.digest import compute_table_digest
from lssl_ray.video.held_back import split_held_back
from lssl_ray.video.manifest import Manifest
from lssl_ray.video.order import SHUFFLED, find_order_rule
from lssl_ray.whole_files import write_whole

INDEX_STAGE = "index"
ORDER_FILE = "artifacts/clip_order.json"
_RULE = "rule"


def select_training_videos(
    manifest: Manifest, *, source: str, num_held_back: int, run_folder: Path
) -> Manifest:
    """The videos to train on; those that the index found bad go into the quarantine, once.

    Args:
        manifest: Good and bad ones.
        source: Where it is from, for the error.
        num_held_back: See `video.held_back`.
        run_folder: Of the quarantine, and of what is filed about the videos when the run begins.

    Raises:
        DataError: There are none.
        CheckpointError: The run has trained on others, or visited them in another order.
    """
    usable = manifest.usable()
    if not len(usable):
        _quarantine_indexed(manifest, run_folder)
        raise DataError(
            f"{source} lists no usable video ({len(manifest)} bad ones, see "
            f"{run_folder / QUARANTINE_FILE}); index other folders."
        )
    videos = split_held_back(usable, num_held_back=num_held_back)[0]
    _require_same_order(videos, source=source, run_folder=run_folder)
    _quarantine_indexed(manifest, run_folder)
    return videos


def _require_same_order(videos: Manifest, *, source: str, run_folder: Path) -> None:
    path = run_folder / ORDER_FILE
    ids = compute_table_digest(videos.table, header="lssl_ray.clip_order\n", columns=["video_id"])
    now = {_RULE: find_order_rule(len(videos)), "videos": len(videos), "video_ids": ids}
    filed = now
    if list_checkpoints(run_folder) or _has_rows(run_folder):
        # Releases that filed nothing knew one rule; of which videos it was is not known then.
        filed = _read_order(path) if path.exists() else {**now, _RULE: SHUFFLED}
    if {**filed, _RULE: now[_RULE]} != now:
        raise CheckpointError(
            f"{source} does not list the videos that {run_folder} was trained on: "
            f"{filed.get('videos')} then, {len(videos)} now, or others. Clips would be left out or "
            "done twice in this epoch. Index the same files again with the same options (--exclude "
            "too), or start another run on these: --run-name OTHER."
        )
    if filed != now:
        raise CheckpointError(
            f"{run_folder} was started by a release that orders {len(videos)} videos in another "
            "way: clips would be left out or done twice in this epoch. Go on with the release "
            "that started it, or start another run: --run-name OTHER."
        )
    if not path.exists() or _read_order(path) != now:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(now, indent=2) + "\n")


def _read_order(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} can't be read ({error}); it says which videos the run trains on. Remove it "
            "if they are still the same."
        ) from error


def _has_rows(run_folder: Path) -> bool:
    metrics = run_folder / METRICS_FILE
    return metrics.is_file() and metrics.stat().st_size > 0


def _quarantine_indexed(manifest: Manifest, run_folder: Path) -> None:
    journal = Journal(run_folder)
    rows = read_rows(run_folder / QUARANTINE_FILE)
    known = {row["video_id"] for row in rows if row["stage"] == INDEX_STAGE}
    for record in manifest.bad().records():
        if record.video_id not in known:
            row = {
                "video_id": record.video_id,
                "path": record.path,
                "reason": record.reason,
                "detail": record.detail,
                "step": 0,
                "stage": INDEX_STAGE,
            }
            journal.append("quarantine", row)
