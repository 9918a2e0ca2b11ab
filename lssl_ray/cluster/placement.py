"""Which nodes decode and which train: Ray node labels, checked before anything waits for them."""

from collections.abc import Mapping

import ray

from lssl_ray.errors import ClusterError


def require_nodes(setting: str, labels: Mapping[str, str]) -> None:
    """Refuse labels that no living node has; Ray would wait for one for ever.

    Args:
        setting: The configuration's key, for the message.
        labels: Label to value, compared as they are; none fit every node.

    Raises:
        ClusterError: No node has all of them.
    """
    nodes = [node["Labels"] for node in ray.nodes() if node["Alive"]]
    if any(labels.items() <= node.items() for node in nodes):
        return
    # Ray's own labels (ray.io/...) are told apart by their prefix and help nobody here.
    known = sorted(
        {f"{key}={value}" for node in nodes for key, value in node.items() if "ray.io/" not in key}
    )
    raise ClusterError(
        f"{setting}={dict(labels)}: none of {len(nodes)} nodes has these labels. Labels there: "
        f"{', '.join(known) or 'none'}. Start nodes with them (ray start --labels key=value, or "
        f"labels: in the cluster's YAML, min_workers at least 1), or leave {setting} out."
    )
