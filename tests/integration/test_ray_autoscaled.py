"""Labels and drains where Ray's real autoscaler starts the nodes: from zero, on this machine."""

import time
from collections.abc import Iterator

import pytest
import ray
from autoscaled_ray import autoscaled_ray

from lssl_ray.cluster.doctor import JoinedRay
from lssl_ray.cluster.placement import require_nodes
from lssl_ray.cluster.preemption import drain_node
from lssl_ray.errors import ClusterError
from lssl_ray.preemption import Notice

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    # Ray's own, of several kinds, in a process that pytest runs in.
    pytest.mark.filterwarnings("default"),
]

START_SECONDS = 120
POOL = {"pool": "decode"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # nobody's token is touched
        # Ray takes 127.0.0.1 for the machine's own address otherwise.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setattr(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", False)
        with autoscaled_ray():
            yield


def list_pool() -> list[str]:
    return [
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and POOL.items() <= node["Labels"].items()
    ]


def test_label_of_no_node_type_is_refused_long_before_the_start_time(cluster: None) -> None:
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"cluster.train_labels.*typo"):
        require_nodes({"cluster.train_labels": {"pool": "typo"}}, start_seconds=START_SECONDS)
    assert time.monotonic() - began < START_SECONDS / 2


def test_label_of_a_node_type_without_nodes_is_waited_for(cluster: None) -> None:
    assert list_pool() == []
    require_nodes({"cluster.decode_labels": POOL}, start_seconds=START_SECONDS)
    assert len(list_pool()) == 1


def test_drained_node_is_known_to_ray_until_it_goes(cluster: None) -> None:
    (node,) = list_pool()

    @ray.remote(num_cpus=1, label_selector=POOL)
    class Worker:
        def compute(self) -> int:
            return 7

    # A node without work would be gone at once.
    worker = Worker.remote()
    assert ray.get(worker.compute.remote()) == 7
    deadline = time.time() + 60
    drain_node(node, Notice("test", deadline))
    draining = ray._private.state.state.get_draining_nodes()
    assert draining[node] == pytest.approx(deadline * 1000, abs=1000)
    # Work that is there goes on.
    assert ray.get(worker.compute.remote()) == 7


def test_drain_of_an_unknown_node_is_refused(cluster: None) -> None:
    with pytest.raises(ClusterError, match="not-a-node"):
        drain_node("not-a-node", Notice("test", time.time() + 60))


def test_doctor_knows_that_an_autoscaler_may_start_nodes(cluster: None) -> None:
    assert JoinedRay("auto", deadline_seconds=START_SECONDS).has_autoscaler()
