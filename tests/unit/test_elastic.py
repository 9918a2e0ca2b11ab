"""How many workers nodes have room for: counted by hand on made-up clusters."""

import pytest

from lssl_ray.cluster.capacity import Need, NodeRoom
from lssl_ray.cluster.elastic import count_workers

WORKER = Need("worker", {"CPU": 1.0})
DECODER = Need("decoder", {"CPU": 1.0, "memory": 2.0})
TRAIN, DECODE = {"pool": "train"}, {"pool": "decode"}


def build_room(cpus: float, *, gpus: float = 0.0, memory: float = 100.0, **labels: str) -> NodeRoom:
    return NodeRoom({"CPU": cpus, "GPU": gpus, "memory": memory}, labels)


@pytest.mark.parametrize(
    ("cores", "expected"),
    # Three decoders: fewer workers rather than fewer decoders, down to the fewest workers.
    [([8], 4), ([7], 4), ([6], 3), ([5], 2), ([4], 2), ([3], 2), ([2], 0), ([], 0), ([3, 3], 3)],
)
def test_workers_leave_decoders_their_cores(cores: list[int], expected: int) -> None:
    rooms = [build_room(count) for count in cores]
    assert count_workers(WORKER, [DECODER] * 3, rooms, least=2, most=4) == expected


def test_workers_are_counted_on_nodes_with_their_labels_only() -> None:
    worker = Need("worker", {"CPU": 1.0}, TRAIN)
    decoders = [Need("decoder", {"CPU": 1.0}, DECODE)] * 4
    rooms = [build_room(16, pool="decode"), build_room(1, pool="train"), build_room(16)]
    assert count_workers(worker, decoders, rooms, least=1, most=4) == 1
    rooms.append(build_room(1, pool="train"))
    assert count_workers(worker, decoders, rooms, least=1, most=4) == 2


def test_decoders_without_any_node_yet_hold_no_worker_back() -> None:
    worker = Need("worker", {"CPU": 1.0}, TRAIN)
    decoders = [Need("decoder", {"CPU": 1.0}, DECODE)] * 4
    assert count_workers(worker, decoders, [build_room(3, pool="train")], least=1, most=4) == 3


def test_a_worker_is_whole_on_one_node() -> None:
    worker = Need("worker", {"CPU": 2.0, "GPU": 1.0})
    rooms = [build_room(3, gpus=1.0), build_room(1, gpus=4.0), build_room(64)]
    assert count_workers(worker, [DECODER], rooms, least=1, most=4) == 1


def test_memory_of_decoders_holds_workers_back_as_cores_do() -> None:
    rooms = [build_room(4, memory=4.0), build_room(2, memory=0.0)]
    # Two decoders fit by memory, on the first node: two cores are left there, and two elsewhere.
    assert count_workers(WORKER, [DECODER] * 3, rooms, least=1, most=9) == 4


@pytest.mark.timeout(60)
def test_a_range_far_above_the_cluster_is_counted_in_no_time() -> None:
    rooms = [build_room(48, gpus=8.0) for _ in range(60)]
    worker = Need("worker", {"CPU": 4.0, "GPU": 1.0})
    assert count_workers(worker, [DECODER] * 640, rooms, least=1, most=100_000) == 480
