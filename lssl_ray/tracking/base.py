"""What a tracking service must offer, and the one that does nothing.

Metric names are `section/name`:

    loss/total, loss/distill_category, loss/distill_description, loss/align,
    loss/prior_category, loss/prior_description     objectives before their weights; total after
    loss/distill_prototypes, loss/prior_prototypes  instead, with objective.space=prototypes
    health/mean_prediction_entropy                  share of log n; toward 0: collapse
    health/sample_entropy                           share of log n; should fall
    health/distinct_concepts, health/agreement      of the batch; student against teacher
    health/collapsed                                1 while health.windows rows in a row look so
    gradient_norm/pretrained, /temporal, /head, /total  before clipping
    schedule/...                                    rates, decay, momentum, temperatures, weights
    data/clips_per_second, data/wait_share          of the window; wait: share of time without clip
    data/decode_seconds_per_clip, data/decode_clips_per_core_second   of the window, while decoding
    data/decoder_busy_share                         decode time over wall time x decoders; near 1:
                                                    decoders set the pace
    data/batches_ready                              mean batches waiting when asked for, 0 to 1
    data/clips_not_tried                            of the window: videos given up before
    data/store_mib_used, data/store_mib_spilled     object store, all nodes; spilled in all
    data/store_readings_failed                      store figures that Ray did not give, in total
    data/clips_trained, /clips_failed, /steps_skipped   totals of the run; failed: quarantined
    time/train_seconds                              total of the run, over all sessions
    zero_shot/SPLIT/clip, zero_shot/SPLIT/adapted   top-1 in [0, 1]
    evaluation/NAME/PROTOCOL/clip, .../adapted      top-1 in [0, 1] of `lssl-ray evaluate`
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

# SCHEDULED: stopped on purpose, to be resumed.
RunStatus = Literal["FINISHED", "FAILED", "KILLED", "SCHEDULED"]


class Tracker(Protocol):
    """One tracked run. Calls never raise for a service that is away: they count and go on."""

    @property
    def num_failed_calls(self) -> int:
        """Calls the service did not take."""

    @property
    def last_step(self) -> int:
        """Newest step that the service already has, 0 for a new run."""

    def log_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log metric rows, each with its `step`."""

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Upload a file or folder, into a folder of the run's artifacts."""

    def finish(self, status: RunStatus) -> None:
        """Close the run."""


class NullTracker:
    """Tracks nothing; the run folder has everything."""

    num_failed_calls = 0
    last_step = 0

    def log_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing."""

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Nothing."""

    def finish(self, status: RunStatus) -> None:
        """Nothing."""
