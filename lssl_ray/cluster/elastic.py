"""How many training workers there are, between the two numbers of `cluster.num_workers`.

Ray Train looks and restarts; what there is room for is counted here. Ray's own count knows no node
labels, gives the cores of decoders away, and counts nodes that are about to go, so it would ask for
workers that can't be placed. Workers are asked for a checkpoint before they are restarted to become
more: no step is done again. Built on parts of Ray Train that it doesn't promise to keep; held to
its 2.60 by tests.

Not here: what a worker does with its number (`train.py`, `data.py`, `video/order.py`).
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus, WorkerGroupState

from lssl_ray.cluster.capacity import (
    Need,
    NodeRoom,
    count_fitting,
    list_needs,
    list_rooms,
    place_need,
)
from lssl_ray.cluster.context import ask_for_checkpoint
from lssl_ray.config import RunConfig
from lssl_ray.config.cluster import ClusterSection

# Ray asks at once again while too few workers fit.
SECONDS_BETWEEN_COUNTS = 1.0
# For the checkpoint before a resize; then the workers stay as they are until Ray looks again.
CHECKPOINT_SECONDS = 600.0

logger = logging.getLogger(__name__)


def count_workers(
    worker: Need, others: Sequence[Need], rooms: Sequence[NodeRoom], *, least: int, most: int
) -> int:
    """The most workers that take no other process' place.

    Where even the fewest take one, they are started if any other process still has one: decoding
    is slower then.

    Args:
        worker: What each needs.
        others: What decoders and an evaluator need; those that fit nowhere now are not waited for.
        rooms: Nodes that stay, as if nothing ran there.
        least: Fewest workers.
        most: Most workers.

    Returns:
        A number of workers; 0 while there is no room for `least`.
    """
    # Workers first where the fewest others could be.
    rooms = sorted(rooms, key=lambda room: _count_placed([], others, [room]) or 0)
    undisturbed = _count_placed([], others, rooms)
    fitting = count_fitting([worker], rooms, most=most)  # a controller counts, and others wait
    for count in range(fitting, least - 1, -1):
        if _count_placed([worker] * count, others, rooms) == undisturbed:
            return count
    return least if (_count_placed([worker] * least, others, rooms) or 0) > 0 else 0


def list_staying_nodes() -> list[dict[str, Any]]:
    """Nodes of the connected Ray that are not about to go; Ray puts nothing on the others."""
    leaving = ray._private.state.state.get_draining_nodes()
    return [node for node in ray.nodes() if node["NodeID"] not in leaving]


@dataclass
class _Asked:
    """A checkpoint that was asked for.

    Attributes:
        seconds: When, of the monotonic clock.
        reported: Ranks whose part is stored.
    """

    seconds: float
    reported: set[int] = field(default_factory=set)


class RoomPolicy(ElasticScalingPolicy):  # type: ignore[misc]  # Any to mypy
    """Ray's elastic policy with a count of our own; runs in Ray Train's controller.

    Args:
        scaling_config: With a range of workers.
        worker: What each needs.
        others: What runs beside them.
        desk: Lets go of data that dead workers left, and so of its decoders' cores.
    """

    def __init__(
        self, scaling_config: ScalingConfig, *, worker: Need, others: Sequence[Need], desk: Any
    ) -> None:
        super().__init__(scaling_config)
        self._worker, self._others = worker, tuple(others)
        self._desk = desk
        self._asked: _Asked | None = None

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Start as many as there is room for, or wait."""
        self._asked = None
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, NoopDecision):
            time.sleep(SECONDS_BETWEEN_COUNTS)
        return decision

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        """More workers, once a checkpoint is stored; fewer only when some are gone."""
        if self._asked is not None:
            return self._wait_for_checkpoint(worker_group_state, worker_group_status)
        decision = super().make_decision_for_running_worker_group(
            worker_group_state, worker_group_status
        )
        if self._is_growth(decision, worker_group_state):
            self._asked = _Asked(time.monotonic())
            for worker in worker_group_state.workers:
                worker.execute_async(ask_for_checkpoint)
        return NoopDecision()

    def on_controller_start_worker_group(
        self, *, scaling_config: ScalingConfig, num_workers: int
    ) -> None:
        """The workers before are gone; their decoders must not stand in the new ones' way."""
        ray.get(self._desk.close_data.remote())

    def _count_possible_workers(self, reserved_resources: object) -> int:
        return count_workers(
            self._worker,
            self._others,
            list_rooms(list_staying_nodes()),
            least=self.scaling_config.min_workers,
            most=self.scaling_config.max_workers,
        )

    def _wait_for_checkpoint(
        self, state: WorkerGroupState, status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        assert self._asked is not None
        workers = status.worker_statuses
        self._asked.reported |= {rank for rank in workers if workers[rank].training_report}
        if len(self._asked.reported) < state.num_workers:
            if time.monotonic() - self._asked.seconds > CHECKPOINT_SECONDS:
                logger.warning("No checkpoint in %.0f s: no resize now.", CHECKPOINT_SECONDS)
                self._asked = None
            return NoopDecision()
        self._asked = None
        # Nodes may have gone while the checkpoint was written.
        decision = self._get_resize_decision(self._count_possible_workers({}))
        return decision if self._is_growth(decision, state) else NoopDecision()

    def _is_growth(self, decision: ScalingDecision, state: WorkerGroupState) -> bool:
        return isinstance(decision, ResizeDecision) and decision.num_workers > state.num_workers


class PolicyTrainer(TorchTrainer):  # type: ignore[misc]  # Any to mypy
    """`TorchTrainer` with a scaling policy of ours.

    Args:
        scaling_policy: None for Ray's own.
        arguments: Of `TorchTrainer`.
        options: Of `TorchTrainer`.
    """

    def __init__(
        self, *arguments: Any, scaling_policy: ScalingPolicy | None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._scaling_policy = scaling_policy

    def _initialize_and_run_controller(self, **controller: Any) -> Any:
        if self._scaling_policy is not None:
            controller["scaling_policy"] = self._scaling_policy
        return super()._initialize_and_run_controller(**controller)


def build_scaling(cluster: ClusterSection) -> ScalingConfig:
    """What Ray Train is told of the workers: how many, and what each needs."""
    return ScalingConfig(
        num_workers=cluster.num_workers,
        elastic_resize_monitor_interval_s=cluster.resize_seconds,
        use_gpu=cluster.use_gpu,
        resources_per_worker={
            "CPU": cluster.cpus_per_worker,
            **({"GPU": 1} if cluster.use_gpu else {}),
        },
        label_selector=cluster.train_labels or None,
    )


def build_policy(config: RunConfig, scaling: ScalingConfig, *, desk: Any) -> RoomPolicy | None:
    """Who decides on the number of workers; None for a fixed one."""
    if not scaling.elasticity_enabled:
        return None
    needs = list_needs(config)
    beside = {"decoder", "evaluation"} if config.evaluation.every_checkpoints else {"decoder"}
    return RoomPolicy(
        scaling,
        worker=next(need for need in needs if need.name == "worker"),
        others=[need for need in needs if need.name in beside],
        desk=desk,
    )


def _count_placed(
    workers: Sequence[Need], others: Sequence[Need], rooms: Sequence[NodeRoom]
) -> int | None:
    """How many of the others fit beside the workers; None when the workers don't fit."""
    free = [dict(room.resources) for room in rooms]
    if not all(place_need(worker, rooms, free) for worker in workers):
        return None
    return sum(place_need(other, rooms, free) for other in others)
