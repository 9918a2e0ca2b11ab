"""Which nodes decode and which train: Ray node labels, checked before anything waits for them."""

import logging
import time
from collections.abc import Mapping

import ray
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

from lssl_ray.errors import ClusterError

# A GPU machine boots in 3 to 10 minutes, and a spot machine may have to be asked for twice.
NODE_START_SECONDS = 900.0
POLL_SECONDS = 1.0
RPC_SECONDS = 10
PROBE = {"CPU": 1.0}

logger = logging.getLogger(__name__)


def require_nodes(
    wanted: Mapping[str, Mapping[str, str]], *, start_seconds: float = NODE_START_SECONDS
) -> None:
    """Refuse labels that no node has or can get; Ray would wait for one for ever.

    Where an autoscaler (v2: `ray up`, KubeRay) can start such a node, one of each kind is waited
    for: a cluster may scale from zero, and a label that no node type has is still refused.

    Args:
        wanted: The configuration's key to its labels, compared as they are; none fit every node.
        start_seconds: The longest that an autoscaler may take.

    Raises:
        ClusterError: No living node has all of a key's labels, and none comes.
    """
    nodes = [node["Labels"] for node in ray.nodes() if node["Alive"]]
    missing = {
        setting: labels
        for setting, labels in wanted.items()
        if not any(labels.items() <= node.items() for node in nodes)
    }
    if not missing:
        return
    client = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
    if is_autoscaler_v2(fetch_from_server=True, gcs_client=client):
        _wait_for_nodes(missing, client, start_seconds)
        return
    setting, labels = next(iter(missing.items()))
    # Ray's own labels (ray.io/...) are told apart by their prefix and help nobody here.
    known = sorted(
        {f"{key}={value}" for node in nodes for key, value in node.items() if "ray.io/" not in key}
    )
    raise ClusterError(
        f"{setting}={dict(labels)}: none of {len(nodes)} nodes has these labels. Labels there: "
        f"{', '.join(known) or 'none'}. Start nodes with them (ray start --labels key=value, or "
        f"labels: in the cluster's YAML, min_workers at least 1), or leave {setting} out."
    )


def _wait_for_nodes(
    missing: Mapping[str, Mapping[str, str]],
    client: "ray._raylet.GcsClient",
    start_seconds: float,
) -> None:
    """Ask for a core on each kind of node; the autoscaler starts it, or says that it can't."""
    # What the autoscaler reacts to is work that waits, so a task of nothing waits.
    probe = ray.remote(_do_nothing)
    probes = {
        probe.options(num_cpus=PROBE["CPU"], label_selector=dict(labels)).remote(): setting
        for setting, labels in missing.items()
    }
    waiting, deadline = list(probes), time.monotonic() + start_seconds
    logger.warning("Waiting for the autoscaler to start nodes with %s", dict(missing))
    try:
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS)
            ray.get(done)
            refused = _list_infeasible(client)
            for setting in (probes[ref] for ref in waiting):
                if (labels := dict(missing[setting])) in refused:
                    raise ClusterError(
                        f"{setting}={labels}: no node has these labels, and the autoscaler can "
                        "start none: no node type has them with a core free, or max_workers is "
                        "reached. Give a node type these labels (labels: in cluster.yaml or in "
                        f"workerGroupSpecs), raise its maximum, or leave {setting} out."
                    )
            if waiting and time.monotonic() > deadline:
                raise ClusterError(
                    f"{probes[waiting[0]]}={dict(missing[probes[waiting[0]]])}: the autoscaler "
                    f"started no such node in {start_seconds:.0f} s. `ray status` and monitor.log "
                    "on the head say why (no spot capacity, a quota, a failing setup command)."
                )
    finally:
        for ref in waiting:
            ray.cancel(ref)


def _list_infeasible(client: "ray._raylet.GcsClient") -> list[dict[str, str]]:
    """Labels of the probes that no node type can meet, says the autoscaler."""
    reply = GetClusterStatusReply()
    reply.ParseFromString(client.get_cluster_status(timeout_s=RPC_SECONDS))
    return [
        {
            constraint.label_key: constraint.label_values[0]
            for selector in request.label_selectors
            for constraint in selector.label_constraints
        }
        for request in reply.autoscaling_state.infeasible_resource_requests
        # Another job may ask for more than a node has, with the same labels.
        if dict(request.resources_bundle) == PROBE
    ]


def _do_nothing() -> None:
    """Runs where a node of the wanted kind is."""
