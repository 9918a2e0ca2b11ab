"""Figures that all workers agree on: counts, weighted means, and whether a step may be taken."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lssl_ray.errors import TrainingError
from lssl_ray.training.context import TrainContext
from lssl_ray.types import ClipBatch


@dataclass(frozen=True)
class StepCounts:
    """Clips of one step.

    Attributes:
        clips: Decoded, over all workers.
        failed: Not decoded, over all workers.
        checkpoints_asked: Times that every worker was asked for a checkpoint this session.
        local_share: This worker's decoded clips over the mean of all workers.
    """

    clips: int
    failed: int
    checkpoints_asked: int
    local_share: float


def sum_counts(batch: ClipBatch, context: TrainContext) -> StepCounts:
    """Count a step's clips over all workers; every worker must call it."""
    # What workers are asked for reaches them at different moments: it counts when the sum says
    # that all have heard of it, which they all see at the same step, without a collective more.
    counted = [batch.num_clips, len(batch.failures), context.count_checkpoints_asked()]
    local = torch.tensor(counted, dtype=torch.float64, device=context.device)
    clips, failed, asked = context.all_reduce_sum(local).tolist()
    return StepCounts(
        clips=int(clips),
        failed=int(failed),
        checkpoints_asked=int(asked) // context.world_size,
        local_share=batch.num_clips * context.world_size / clips if clips else 0.0,
    )


def build_weighted_mean(
    counts: StepCounts, context: TrainContext
) -> Callable[[Tensor], Tensor] | None:
    """Mean over workers weighted by their clips, whose gradient is right after DDP's average.

    The value is the global mean. The gradient goes through this worker's own part only, so no
    collective runs in the backward pass; DDP's mean over workers then adds the parts up.
    """
    if context.world_size == 1:
        return None

    def mean(local: Tensor) -> Tensor:
        weighted = local * (counts.local_share / context.world_size)
        total = context.all_reduce_sum(weighted.detach().clone())
        return total + context.world_size * (weighted - weighted.detach())

    return mean


def check_finite(loss: Tensor, norm: Tensor, step: int, context: TrainContext) -> None:
    """Stop before the update, on all workers alike, when any has a non-finite number.

    Raises:
        TrainingError: Naming the step and the ranks.
    """
    bad = torch.zeros(context.world_size, dtype=torch.float64, device=context.device)
    bad[context.rank] = float(not (torch.isfinite(loss) and torch.isfinite(norm)))
    bad = context.all_reduce_sum(bad)
    if bad.any():
        ranks = bad.nonzero().flatten().tolist()
        raise TrainingError(
            f"Non-finite loss or gradient at step {step + 1} on rank(s) {ranks} (rank "
            f"{context.rank}: loss {loss.item()}, gradient norm {norm.item()}). Nothing was "
            "updated. Lower optim.learning_rate, raise objective.student_temperature, or use "
            "precision float32; resume goes on from the last checkpoint."
        )
