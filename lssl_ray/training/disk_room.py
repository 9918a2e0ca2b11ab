"""A full disk at a checkpoint is a refusal, given by all workers at the same step.

A worker that left alone would keep the others waiting for it, and one that raised would be started
again by Ray, to find the disk as full as before.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lssl_ray.errors import CheckpointError
from lssl_ray.full_disk import describe_full_disk, is_disk_full, measure_bytes
from lssl_ray.training.checkpoint import list_checkpoints

logger = logging.getLogger(__name__)


@contextmanager
def refusing_full_disk(
    run_folder: Path, *others: Path, agree: Callable[[bool], bool] = bool
) -> Iterator[None]:
    """Turn a full disk into a `CheckpointError`; every worker must enter and leave this together.

    Args:
        run_folder: The run's own; written to.
        others: Further folders that are written to.
        agree: Whether it happened to any worker, given whether it did to this one; a collective.

    Raises:
        CheckpointError: A disk is full, this worker's or another's.
    """
    failure: OSError | None = None
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        failure = error
    if not agree(failure is not None):
        return
    if failure is None:
        raise CheckpointError(
            "The disk of another worker is full; its log says which. Free space there, then go on "
            f"with: lssl-ray train --resume {run_folder}"
        )
    message = describe_full_run(run_folder, *others)
    logger.error("%s", message)
    raise CheckpointError(message) from failure


def describe_full_run(run_folder: Path, *others: Path) -> str:
    """What to tell the person when a disk is full.

    Args:
        run_folder: The run's own.
        others: Further folders that were written to.
    """
    return describe_full_disk(
        [run_folder, *others],
        needed_bytes=max(map(measure_bytes, (*others, *list_checkpoints(run_folder))), default=0),
        run=run_folder,
    )
