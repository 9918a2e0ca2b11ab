"""Collapse: every clip is given the same concept, and no loss says so. Seen in the metrics."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lssl_ray.errors import TrainingError

logger = logging.getLogger(__name__)

ENTROPY = "health/mean_prediction_entropy"
COLLAPSED = "health/collapsed"


@dataclass(frozen=True)
class CollapseRule:
    """What counts as a collapse, and what follows.

    Attributes:
        action: End the run, warn, or don't look.
        entropy_threshold: Entropy of the mean prediction, as a share of log n, below which a
            window looks like a collapse.
        windows: So many such windows in a row are one.
    """

    action: Literal["warn", "stop", "off"]
    entropy_threshold: float
    windows: int


def judge_window(
    record: Mapping[str, Any], *, low_windows: int, rule: CollapseRule
) -> tuple[int, dict[str, float]]:
    """Count windows in a row that look like a collapse.

    Args:
        record: Metrics of one window, summed over all workers: so that all judge alike.
        low_windows: The count before it.
        rule: What counts.

    Returns:
        The count after it, and what to add to the record. A window in which no step was taken
        says nothing either way.
    """
    if rule.action == "off" or ENTROPY not in record:
        return low_windows, {}
    low_windows = low_windows + 1 if record[ENTROPY] < rule.entropy_threshold else 0
    return low_windows, {COLLAPSED: float(low_windows >= rule.windows)}


def act_on_collapse(
    record: Mapping[str, Any], *, low_windows: int, rule: CollapseRule, rank: int
) -> None:
    """Warn once per collapse (rank 0), or end the run.

    Raises:
        TrainingError: The rule says stop, and the run has collapsed.
    """
    if not record.get(COLLAPSED):
        return
    message = (
        f"The run has collapsed at step {record['step']}: {ENTROPY}={record[ENTROPY]:.3f} of log n "
        f"in the last {low_windows} windows, below health.entropy_threshold="
        f"{rule.entropy_threshold}. Nearly all clips are given the same concepts. Raise "
        "objective.weight_prior, lower optim.learning_rate, or bring the temperatures closer "
        "together and up (objective.teacher_temperature, objective.student_temperature)."
    )
    if rule.action == "stop":
        raise TrainingError(f"{message} To go on regardless, set health.collapse=warn.")
    if rank == 0 and low_windows == rule.windows:
        logger.warning("%s", message)
