"""RUN/best: the best checkpoint by a metric, whole, with best.json in it.

Out of reach of `run.checkpoints_to_keep`. Its files are linked, so it costs disk only once the
checkpoint it came from is deleted.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from lssl_ray.errors import CheckpointError
from lssl_ray.training.holding import link_checkpoint

BEST_FOLDER, BEST_FILE = "best", "best.json"


@dataclass(frozen=True)
class Best:
    """Why a checkpoint is kept.

    Attributes:
        step: Of the checkpoint.
        metric: That it is the best by.
        value: Of that metric.
    """

    step: int
    metric: str
    value: float


def find_best(run_folder: Path) -> Best | None:
    """What is kept, if anything is.

    Raises:
        CheckpointError: best.json can't be read.
    """
    path = run_folder / BEST_FOLDER / BEST_FILE
    try:
        return Best(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} can't be read: {error!r}. Move {path.parent} away to choose anew."
        ) from error


def keep_best(run_folder: Path, checkpoint: Path, candidate: Best) -> Best:
    """Keep a checkpoint when it is better than the one kept; of equals the earlier stays.

    Args:
        run_folder: The run's own.
        checkpoint: Whole; its files are not changed once written.
        candidate: What speaks for it.

    Returns:
        The best by now.
    """
    best = find_best(run_folder)
    if best is not None and best.metric == candidate.metric and best.value >= candidate.value:
        return best
    folder = run_folder / BEST_FOLDER
    staging, replaced = run_folder / ".best-new", run_folder / ".best-old"
    for leftover in (staging, replaced):  # of a kill in these lines
        shutil.rmtree(leftover, ignore_errors=True)
    link_checkpoint(checkpoint, staging)
    (staging / BEST_FILE).write_text(json.dumps(asdict(candidate), indent=2), encoding="utf-8")
    if folder.exists():
        os.replace(folder, replaced)
    os.replace(staging, folder)
    shutil.rmtree(replaced, ignore_errors=True)
    return candidate
