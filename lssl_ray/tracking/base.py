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
    data/reader_fallbacks                           of the window: clips that another reader gave
                                                    than the manifest names
    data/store_mib_used, data/store_mib_spilled     object store, all nodes; spilled in all
    data/store_readings_failed                      store figures that Ray did not give, in total
    data/clips_trained, /clips_failed, /steps_skipped   totals of the run; failed: quarantined
    cluster/num_workers                             training processes of the window
    cluster/nodes_leaving                           of theirs, noticed by rank 0 (on Ray)
    checkpoint/asked                                1 where one was saved off its rhythm: a node
                                                    leaves, or the number of workers changes
    time/train_seconds                              total of the run, over all sessions
    validation/SPLIT/zero_shot, .../knn             teacher's top-1 in [0, 1], during training
    held_back/SCORE                                 label-free scores; higher is better
    validation/waiting                              checkpoints not evaluated yet, at that moment
    validation/not_evaluated                        1 for a checkpoint that was given up
    time/validation_seconds                         one evaluation took; the first one decodes
    zero_shot/SPLIT/clip, zero_shot/SPLIT/adapted   top-1 in [0, 1], at the end
    evaluation/NAME/PROTOCOL/clip, .../adapted      top-1 in [0, 1] of `lssl-ray evaluate`
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

# SCHEDULED: stopped on purpose, to be resumed.
RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED", "SCHEDULED"]


class Tracker(Protocol):
    """One tracked run. No call raises or waits for a service that is away, but for `close`."""

    @property
    def num_failed_calls(self) -> int:
        """Attempts that the service did not take; what they held is sent again."""

    def log_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log results that the journal does not hold, each with its `step`."""

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Upload a file or folder, into a folder of the run's artifacts."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""

    def close(self) -> None:
        """Wait for what is due to arrive, a bounded time; the run's status stays as it is."""

    def finish(self, status: RunStatus) -> None:
        """Set the status, then as `close`."""

    def describe_missing(self) -> str | None:
        """What a person can do about what the service lacks; None when it has everything."""


class NullTracker:
    """Tracks nothing; the run folder has everything."""

    num_failed_calls = 0

    def log_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing."""

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def finish(self, status: RunStatus) -> None:
        """Nothing."""

    def describe_missing(self) -> str | None:
        """Nothing is missing."""
        return None
