"""Values that travel between modules, the axis legend, and the glossary.

Axes: B clips in a batch, V views, T frames, C H W pixels, N tokens of a frame (CLS first),
D tower width, E joint embedding, K text concepts.

Glossary
    video     a file
    clip      one visit of one video in one epoch: the unit that is sampled and counted
    window    the stretch of a video that one clip looks at
    view      an augmented cut of the window: `global` (long, large) or `local` (short, small)
    concept   a row of a concept space: a text embedding that scores a clip by cosine
    student   the trained encoder; `teacher`, its exponential moving average
    step      one optimizer update
    position  index of a clip in the whole run: position // videos is its epoch
    worker    a training process (one rank); `decoder`, a process that reads videos
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float, UInt8
from torch import Tensor

# Columns of `ClipBatch.augmentation`.
FLIP, BRIGHTNESS, CONTRAST, SATURATION, GREY = range(5)
NUM_AUGMENTATION_VALUES = 5


@dataclass(frozen=True)
class ClipFailure:
    """A clip that could not be decoded: what the quarantine file records.

    Attributes:
        video_id: The manifest's id of the video.
        path: Where the video was looked for.
        reason: A short category, e.g. `deadline_exceeded`.
        detail: One line from the decoder or the operating system.
        seconds: How long the attempt took.
        epoch: Epoch of the visit, counted from 0.
        position: Run-wide index of the visit; -1 outside training.
        tried: False when the video had killed its decoder before and was left out.
    """

    video_id: str
    path: str
    reason: str
    detail: str
    seconds: float
    epoch: int
    position: int = -1
    tried: bool = True


@dataclass(frozen=True)
class FeedStats:
    """How a batch came to be.

    Attributes:
        decode_seconds: Time that decoders spent on its clips, failed ones included, summed.
        num_tried: Clips that a decoder worked on.
        num_fallbacks: Clips that another reader gave than the one that the manifest names.
        batches_ready: Batches that waited, whole and on the device, when this one was asked for.
    """

    decode_seconds: float = 0.0
    num_tried: int = 0
    num_fallbacks: int = 0
    batches_ready: int = 0


@dataclass(frozen=True)
class ClipBatch:
    """What one worker trains on in one step.

    Attributes:
        global_views: Long, large views, RGB in [0, 255].
        local_views: Short, small views, RGB in [0, 255]; None when a run has none.
        augmentation: Per view (global ones first): flip (0 or 1), brightness, contrast and
            saturation factors, grey (0 or 1). Applied on the training device.
        positions: Run-wide index of each decoded clip.
        video_ids: Manifest id of each decoded clip.
        failures: Clips of this batch that could not be decoded; they are in no tensor.
        feed: What it took to get it here; decides nothing.
    """

    global_views: UInt8[Tensor, "clips globals frames height width 3"]
    local_views: UInt8[Tensor, "clips locals local_frames local_height local_width 3"] | None
    augmentation: Float[Tensor, "clips views 5"]
    positions: tuple[int, ...]
    video_ids: tuple[str, ...]
    failures: tuple[ClipFailure, ...] = ()
    feed: FeedStats = FeedStats()

    @property
    def num_clips(self) -> int:
        """Number of clips that were decoded."""
        return len(self.positions)


@dataclass(frozen=True)
class StepOutput:
    """What the task computed for one batch.

    Attributes:
        loss: This worker's part of the weighted total, to differentiate: its clips' share comes
            in, so that the workers' mean is the total of the global batch.
        terms: Each objective's own value, before its weight, and `total`, their weighted sum over
            this worker's clips; detached.
        monitors: Health figures of the batch (collapse, agreement); detached.
        memory: What the objectives remember once this step is taken (running means); detached.
    """

    loss: Float[Tensor, ""]
    terms: Mapping[str, Tensor]
    monitors: Mapping[str, Tensor]
    memory: Mapping[str, Tensor]


@dataclass(frozen=True)
class Progress:
    """How far a run is; saved with every checkpoint.

    Attributes:
        step: Optimizer updates done, counting steps skipped for want of a usable clip.
        positions_done: Clips consumed, decoded or not: where the data goes on.
        clips_trained: Clips that took part in an update.
        clips_failed: Clips that could not be decoded.
        steps_skipped: Steps in which no clip on any worker could be decoded.
        low_entropy_windows: Metric windows in a row, up to now, that looked like a collapse.
        train_seconds: Wall time in the loop, over all sessions of the run.
        data_wait_seconds: The part of it spent waiting for clips.
    """

    step: int = 0
    positions_done: int = 0
    clips_trained: int = 0
    clips_failed: int = 0
    steps_skipped: int = 0
    low_entropy_windows: int = 0
    train_seconds: float = field(default=0.0, compare=False)
    data_wait_seconds: float = field(default=0.0, compare=False)
