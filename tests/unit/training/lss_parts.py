"""A small task, optimiser and batches for the training tests; also imported by spawned workers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from lssl_ray.model.clip import ClipModel
from lssl_ray.model.prototype_head import PrototypeHead
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.model.teacher import build_teacher
from lssl_ray.training.context import LocalContext
from lssl_ray.training.health import CollapseRule
from lssl_ray.training.loop import LoopSettings, Schedules
from lssl_ray.training.schedules import constant, cosine
from lssl_ray.training.task import LossWeights, LssTask, Spaces, Temperatures
from lssl_ray.types import ClipBatch, ClipFailure, StepOutput

TEMPERATURES = Temperatures(student=0.3, teacher=0.2)
ALL_WEIGHTS = LossWeights(distill_category=1.0, distill_description=0.7, align=0.5, prior=0.3)
NUM_CATEGORIES, NUM_DESCRIPTIONS, NUM_PROTOTYPES = 5, 8, 7
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class DoubleEncoder(VideoEncoder):
    """Computes in float64, so that sums in another order agree far beyond 1e-6."""

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels.double())


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build_link() -> Tensor:
    """Descriptions 0..7 belong to categories 0..4 in turn."""
    return F.one_hot(torch.arange(NUM_DESCRIPTIONS) % NUM_CATEGORIES, NUM_CATEGORIES).T.float()


def build_task(
    clip: ClipModel,
    *,
    full: bool = False,
    describe: bool = True,
    spaces: Spaces = "both",
    prototypes: bool = False,
    prior_running_mean: float = 0.0,
    centering_momentum: float | None = None,
    encoder_type: type[VideoEncoder] = VideoEncoder,
) -> LssTask:
    """A task whose student and teacher already differ, in time and space."""
    assert isinstance(clip.visual, VisionTransformer)
    student = encoder_type(clip.visual, num_frames=2)
    teacher = build_teacher(student)
    with torch.no_grad():
        for index, parameter in enumerate(student.parameters()):
            parameter.add_(0.05 * draw(*parameter.shape, seed=100 + index))
    rows = NUM_DESCRIPTIONS if full else NUM_CATEGORIES
    task = LssTask(
        student,
        teacher,
        categories=F.normalize(draw(NUM_CATEGORIES, student.embedding_dim, seed=1), dim=-1),
        descriptions=F.normalize(draw(rows, student.embedding_dim, seed=2), dim=-1)
        if describe
        else None,
        link=build_link() if full and describe else None,
        spaces=spaces,
        head=build_head(student.embedding_dim) if prototypes else None,
        prior_running_mean=prior_running_mean,
        centering_momentum=centering_momentum,
        mean=MEAN,
        std=STD,
    )
    return task.double() if encoder_type is DoubleEncoder else task


def build_head(embedding_dim: int) -> PrototypeHead:
    """A small head with every weight drawn anew, whatever the random state."""
    head = PrototypeHead(embedding_dim, hidden=6, num_prototypes=NUM_PROTOTYPES, bottleneck=4)
    with torch.no_grad():
        for index, parameter in enumerate(head.parameters()):
            parameter.copy_(0.5 * draw(*parameter.shape, seed=500 + index))
    return head


def compute(
    task: LssTask,
    batch: ClipBatch,
    *,
    weights: LossWeights = ALL_WEIGHTS,
    temperatures: Temperatures = TEMPERATURES,
    **how: Any,
) -> StepOutput:
    """The whole method on one batch."""
    output: StepOutput = task(batch, weights=weights, temperatures=temperatures, **how)
    return output


def draw_batch(
    num_clips: int, *, seed: int, num_global: int = 2, num_local: int = 2, first_position: int = 0
) -> ClipBatch:
    """Random views with random augmentation values."""
    rng = torch.Generator().manual_seed(seed)

    def views(count: int, size: int) -> Tensor:
        shape = (num_clips, count, 2, size, size, 3)
        return torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)

    uniform = torch.rand(num_clips, num_global + num_local, 5, generator=rng)
    augmentation = 0.6 + 0.8 * uniform
    augmentation[..., [0, 4]] = (uniform[..., [0, 4]] > 0.5).float()  # flip and grey
    return ClipBatch(
        global_views=views(num_global, 32),
        local_views=views(num_local, 16) if num_local else None,
        augmentation=augmentation,
        positions=tuple(range(first_position, first_position + num_clips)),
        video_ids=tuple(f"video{first_position + i}" for i in range(num_clips)),
    )


def take_clips(batch: ClipBatch, start: int, stop: int) -> ClipBatch:
    """The batch that another split of the same clips gives one worker."""
    return replace(
        batch,
        global_views=batch.global_views[start:stop],
        local_views=None if batch.local_views is None else batch.local_views[start:stop],
        augmentation=batch.augmentation[start:stop],
        positions=batch.positions[start:stop],
        video_ids=batch.video_ids[start:stop],
    )


def fail_clips(batch: ClipBatch, num_failed: int) -> ClipBatch:
    """The last clips of the batch become failures."""
    failures = tuple(
        ClipFailure(
            video_id=video_id,
            path=f"/videos/{video_id}",
            reason="decode_failed",
            detail="cut",
            seconds=0.1,
            epoch=0,
        )
        for video_id in batch.video_ids[batch.num_clips - num_failed :]
    )
    kept = take_clips(batch, 0, batch.num_clips - num_failed)
    return replace(kept, failures=failures)


def build_schedules(num_steps: int) -> Schedules:
    return Schedules(
        pretrained_rate=cosine(1e-3, 1e-5, num_steps=num_steps, warmup_steps=1),
        temporal_rate=cosine(1e-2, 1e-4, num_steps=num_steps, warmup_steps=1),
        weight_decay=cosine(0.04, 0.1, num_steps=num_steps),
        momentum=cosine(0.9, 1.0, num_steps=num_steps),
        student_temperature=constant(TEMPERATURES.student),
        teacher_temperature=constant(TEMPERATURES.teacher),
        weight_distill_category=constant(ALL_WEIGHTS.distill_category),
        weight_distill_description=constant(ALL_WEIGHTS.distill_description),
        weight_align=constant(ALL_WEIGHTS.align),
        weight_prior=constant(ALL_WEIGHTS.prior),
    )


def build_settings(num_steps: int, *, clips_per_step: int, **changes: Any) -> LoopSettings:
    settings = LoopSettings(
        num_steps=num_steps,
        stop_at_step=num_steps,
        positions_per_step=clips_per_step,
        num_positions=num_steps * clips_per_step,
        gradient_clip=3.0,
        log_every=1,
        checkpoint_every=1000,
        max_bad_fraction=0.1,
        precision="float32",
        micro_batches=1,
        collapse=CollapseRule(action="warn", entropy_threshold=0.2, windows=3),
        run_config="run: {}\n",
    )
    return replace(settings, **changes)


class Rows:
    """What the loop recorded, by kind."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, Any]] = []
        self.quarantine: list[dict[str, Any]] = []

    def append(self, kind: str, record: Any) -> None:
        getattr(self, kind).append(dict(record))


def build_context(run_folder: Path, rows: Rows, *, num_to_keep: int = 10) -> LocalContext:
    return LocalContext(
        run_folder, device=torch.device("cpu"), append=rows.append, num_to_keep=num_to_keep
    )
