"""How many trials of a sweep run at once: those that fit whole, counted as nodes come and go.

Where Ray's autoscaler (v2: `ray up`, KubeRay) runs, it is asked for the nodes of trials that do not
fit, each by a placement group of the cores and GPUs that the trial needs. Ray fills a group as a
whole or not at all, and drops it with the sweep, however that ends. Not done by Ray's
`request_resources`: its wish outlives a killed sweep, and the nodes with it.
"""

import logging
import os
import time
from typing import Any

import ray
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from lssl_ray.cluster.capacity import (
    LESS,
    MOST_TRIALS,
    choose_concurrency,
    count_cores,
    count_fitting,
    describe_rooms,
    describe_trial,
    list_needs,
    list_rooms,
)
from lssl_ray.cluster.placement import NODE_START_SECONDS, POLL_SECONDS, RPC_SECONDS
from lssl_ray.cluster.session import SPARE_BYTES, connect_ray
from lssl_ray.config import RunConfig
from lssl_ray.errors import ClusterError

RECOUNT_SECONDS = 2.0
# A group may be given the room that a trial, begun a moment ago, has not taken yet.
SETTLE_SECONDS = 30.0
MOST_ASKED = 8  # a cluster grows in steps of so many trials

logger = logging.getLogger(__name__)


class TrialRoom:
    """Room for the trials of one sweep on the connected Ray; the cluster is counted as its own.

    Args:
        config: What all trials share.
        wanted: Trials at once at most; None for as many as fit.
        can_grow: Whether an autoscaler may start nodes.
        settle_seconds: After room was found, until more is asked for.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        wanted: int | None,
        can_grow: bool,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self._config = config
        self._needs = list_needs(config)
        self._most = MOST_TRIALS if wanted is None else wanted
        self._wanted = wanted
        self._settle_seconds = settle_seconds
        self._asked: list[PlacementGroup] = []
        self._look_again_at = self._ask_again_at = 0.0
        self._counted, self._counted_at = 0, 0.0
        self.can_grow = can_grow

    def count(self) -> int:
        """Trials that fit on the nodes that are there; at least the one that waits for nodes."""
        now = time.monotonic()
        if now - self._counted_at >= RECOUNT_SECONDS:
            rooms = list_rooms(ray.nodes())
            self._counted = count_fitting(self._needs, rooms, most=self._most)
            self._counted_at = now
        return max(1, self._counted)

    def require(self, *, start_seconds: float = NODE_START_SECONDS) -> None:
        """Refuse a sweep of which not even one trial can run; wait for nodes that can be started.

        Args:
            start_seconds: The longest that an autoscaler may take.

        Raises:
            ClusterError: Nothing fits and nothing comes; without an autoscaler also where not as
                many fit as are wanted.
        """
        rooms = list_rooms(ray.nodes())
        if not self.can_grow:
            choose_concurrency(self._config, rooms, wanted=self._wanted)
        elif not count_fitting(self._needs, rooms, most=1):
            self._wait_for_nodes(start_seconds)
            choose_concurrency(self._config, list_rooms(ray.nodes()), wanted=None)
        self._counted_at = 0.0

    def ask(self, num_trials: int) -> None:
        """Have an autoscaler know of trials that could run beside those that fit.

        Called again and again; without an autoscaler it does nothing.

        Args:
            num_trials: That are left to run; 0 takes back what was asked before.
        """
        if not self.can_grow:
            return
        now = time.monotonic()
        if num_trials and now < self._look_again_at:
            return
        self._look_again_at = now + RECOUNT_SECONDS
        num_lacking = max(0, min(num_trials, self._most - self.count(), MOST_ASKED))
        for group in list(self._asked):
            if len(self._asked) > num_lacking or _is_there(group):
                self._asked.remove(group)
                remove_placement_group(group)
                self._ask_again_at = now + self._settle_seconds
                self._counted_at = 0.0
        if now >= self._ask_again_at:
            while len(self._asked) < num_lacking:
                self._asked.append(self._reserve())

    def _reserve(self) -> PlacementGroup:
        """Cores and GPUs of one trial, as soon as there is room for it."""
        return placement_group(
            # Node types often don't say what memory they have: it is counted once they are there.
            [
                {name: need.resources[name] for name in ("CPU", "GPU") if name in need.resources}
                for need in self._needs
            ],
            bundle_label_selector=[dict(need.labels) for need in self._needs],
        )

    def _wait_for_nodes(self, start_seconds: float) -> None:
        logger.warning("Waiting for the autoscaler to start nodes: %s.", self._describe())
        client = _connect_to_autoscaler()
        group, deadline = self._reserve(), time.monotonic() + start_seconds
        try:
            while not _is_there(group):
                rooms = describe_rooms(list_rooms(ray.nodes()))
                if _is_infeasible(client, group):
                    raise ClusterError(
                        f"one trial does not fit on this cluster ({rooms}), and the autoscaler can "
                        f"start no nodes for it. {self._describe()}; give node types so much "
                        f"room and these labels, raise their maximum, {LESS}."
                    )
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"the autoscaler started no nodes for a trial in {start_seconds:.0f} s "
                        f"(there: {rooms}). {self._describe()}. `ray status` and monitor.log on "
                        "the head say why (no spot capacity, a quota, a failing setup command)."
                    )
                time.sleep(POLL_SECONDS)
        finally:
            remove_placement_group(group)

    def _describe(self) -> str:
        return describe_trial(self._config)


def open_trial_room(config: RunConfig, *, wanted: int | None) -> TrialRoom:
    """Start or join Ray, and see how many trials run at once there.

    A Ray of our own gets as many logical cores as the trials need; without a wish as many trials
    as the machine's real cores hold, and one on a small machine.

    Args:
        config: What all trials share.
        wanted: Trials at once; None for what fits.

    Raises:
        ClusterError: Ray can't be started or found, or trials do not fit and no nodes come.
    """
    cluster = config.cluster
    if cluster.address == "local":
        cores = count_cores(list_needs(config))
        if wanted is None and not cluster.use_gpu:
            wanted = max(1, (os.cpu_count() or 1) // cores)
        # With GPUs, those are what decides.
        num_trials = wanted or max(1, _count_gpus() // cluster.most_workers)
        memory = cluster.num_decoders * cluster.decode_memory_mib * 2**20
        connect_ray(
            address="local",
            num_cpus=num_trials * cores,
            memory_bytes=num_trials * memory + SPARE_BYTES,
            remedy="cluster.address=local; to join a cluster, --set cluster.address=auto",
        )
        can_grow = False
    else:
        connect_ray(address="auto", num_cpus=0, remedy="cluster.address=auto")
        can_grow = is_autoscaler_v2(fetch_from_server=True, gcs_client=_connect_to_autoscaler())
    room = TrialRoom(config, wanted=wanted, can_grow=can_grow)
    room.require()
    return room


def _is_there(group: PlacementGroup) -> bool:
    return bool(placement_group_table(group).get("state") == "CREATED")


def _connect_to_autoscaler() -> Any:
    return ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)


def _is_infeasible(client: Any, group: PlacementGroup) -> bool:
    """Whether no nodes that could be started hold the group, says the autoscaler."""
    reply = GetClusterStatusReply()
    reply.ParseFromString(client.get_cluster_status(timeout_s=RPC_SECONDS))
    return any(
        request.details.startswith(group.id.hex())
        for request in reply.autoscaling_state.infeasible_gang_resource_requests
    )


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()
