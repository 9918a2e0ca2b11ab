"""Which videos of a manifest a run trains on: the usable ones that are not held back."""

from pathlib import Path

from lssl_ray.errors import DataError
from lssl_ray.tracking.journal import QUARANTINE_FILE, Journal, read_rows
from lssl_ray.video.held_back import split_held_back
from lssl_ray.video.manifest import Manifest

INDEX_STAGE = "index"


def select_training_videos(
    manifest: Manifest, *, source: str, num_held_back: int, run_folder: Path
) -> Manifest:
    """The videos to train on; those that the index found bad go into the quarantine, once.

    Args:
        manifest: Good and bad ones.
        source: Where it is from, for the error.
        num_held_back: See `video.held_back`.
        run_folder: Of the quarantine.

    Raises:
        DataError: There are none.
    """
    _quarantine_indexed(manifest, run_folder)
    usable = manifest.usable()
    if not len(usable):
        raise DataError(
            f"{source} lists no usable video ({len(manifest)} bad ones, see "
            f"{run_folder / QUARANTINE_FILE}); index other folders."
        )
    return split_held_back(usable, num_held_back=num_held_back)[0]


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
