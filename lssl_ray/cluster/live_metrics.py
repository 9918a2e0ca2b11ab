"""A run's figures for Prometheus, under names that stay: what Ray's metrics endpoint exports.

Set in one place, by the run's desk, from the rows that it files: not per step, and never a second
source of truth. `docs/monitoring.md` says what the names mean and what to be told about.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.util.metrics import Gauge

MIB = 2.0**20
# Ray exports every ten seconds what was set since, and forgets what it was not told for twenty.
REPEAT_SECONDS = 5.0
RUN_TAG = "run"


@dataclass(frozen=True)
class LiveMetric:
    """One figure.

    Attributes:
        name: In Prometheus after `ray_`.
        description: What it is, with its unit.
        key: Of a row of metrics; None for what a row does not hold.
        factor: From the row's unit to the name's.
    """

    name: str
    description: str
    key: str | None = None
    factor: float = 1.0


# Gauges all: Ray's counters can't be exported at 0, so the first event of each would go unseen by
# `increase()`, and a resumed run starts below what it had counted.
STARTS = LiveMetric("lssl_worker_starts", "Times this session that the workers started.")
STALLS = LiveMetric("lssl_stalls", "Workers that stood still and were ended, this session.")
LAST_ROW = LiveMetric("lssl_last_row_timestamp_seconds", "When the last row of metrics came, Unix.")
LAST_CHECKPOINT = LiveMetric(
    "lssl_last_checkpoint_timestamp_seconds", "When the last checkpoint of this session was whole."
)
FROM_ROWS = (
    LiveMetric("lssl_step", "Steps done.", "step"),
    LiveMetric("lssl_planned_steps", "Steps of the whole run.", "num_steps"),
    LiveMetric("lssl_loss", "Total loss.", "loss/total"),
    LiveMetric("lssl_gradient_norm", "Before clipping.", "gradient_norm/total"),
    LiveMetric(
        "lssl_mean_prediction_entropy_ratio",
        "Entropy of the mean prediction, of log n: near 0 in a collapse.",
        "health/mean_prediction_entropy",
    ),
    LiveMetric("lssl_clips_per_second", "Over all workers.", "data/clips_per_second"),
    LiveMetric("lssl_data_wait_ratio", "Of rank 0's time: waiting for clips.", "data/wait_share"),
    LiveMetric(
        "lssl_decoder_busy_ratio",
        "Of the decoders' time: near 1 they set the pace.",
        "data/decoder_busy_share",
    ),
    LiveMetric(
        "lssl_batches_ready", "Batches that lay ready when one was taken.", "data/batches_ready"
    ),
    LiveMetric("lssl_clips_trained", "Clips decoded and trained on.", "data/clips_trained"),
    LiveMetric("lssl_clips_quarantined", "Clips that could not be decoded.", "data/clips_failed"),
    LiveMetric(
        "lssl_skipped_steps", "Steps without one clip that could be decoded.", "data/steps_skipped"
    ),
    LiveMetric("lssl_workers", "Training workers.", "cluster/num_workers"),
    LiveMetric(
        "lssl_leaving_nodes",
        "Nodes of the workers that were announced to go.",
        "cluster/nodes_leaving",
    ),
    LiveMetric("lssl_object_store_used_bytes", "Of all nodes' stores.", "data/store_mib_used", MIB),
    LiveMetric(
        "lssl_object_store_spilled_bytes",
        "Written to disks since Ray started, over all nodes.",
        "data/store_mib_spilled",
        MIB,
    ),
)
LIVE_METRICS = (*FROM_ROWS, STARTS, STALLS, LAST_ROW, LAST_CHECKPOINT)


class LiveMetrics:
    """The gauges of one run, exported for as long as this process lives.

    Args:
        run: Name of the run, the value of the tag `run`.
    """

    def __init__(self, run: str) -> None:
        self._tags = {RUN_TAG: run}
        self._gauges = {
            metric.name: Gauge(metric.name, metric.description, tag_keys=(RUN_TAG,))
            for metric in LIVE_METRICS
        }
        self._values = {STARTS.name: 0.0, STALLS.name: 0.0}
        threading.Thread(target=self._repeat, name="live-metrics", daemon=True).start()

    def show_row(self, row: Mapping[str, Any]) -> None:
        """A row of training steps is filed; rows of evaluations hold none of these figures."""
        values = compute_values(row)
        if values:
            self._values |= values | {LAST_ROW.name: time.time()}

    def count(self, metric: LiveMetric) -> None:
        """One more of `STARTS` or `STALLS`."""
        self._values[metric.name] += 1

    def note_checkpoint(self) -> None:
        """A checkpoint is whole."""
        self._values[LAST_CHECKPOINT.name] = time.time()

    def _repeat(self) -> None:
        """In a thread: a run that stands still must stay visible, and how long it does."""
        while True:
            for name, value in list(self._values.items()):
                self._gauges[name].set(value, tags=self._tags)
            time.sleep(REPEAT_SECONDS)


def compute_values(row: Mapping[str, Any]) -> dict[str, float]:
    """What a row of metrics says, by live name and in its unit; nothing for other rows."""
    if "num_steps" not in row:
        return {}
    return {
        metric.name: float(row[metric.key]) * metric.factor
        for metric in FROM_ROWS
        if metric.key is not None and metric.key in row
    }
