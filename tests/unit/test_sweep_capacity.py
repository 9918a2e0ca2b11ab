"""How many trials fit: counted by hand on made-up clusters."""

from collections.abc import Callable

import pytest

from lssl_ray.cluster.capacity import (
    Need,
    NodeRoom,
    choose_concurrency,
    count_cores,
    count_fitting,
    list_first_needs,
    list_needs,
    list_rooms,
)
from lssl_ray.config import RunConfig
from lssl_ray.errors import ClusterError

MEMORY = 2048 * 2**20
BuildConfig = Callable[..., RunConfig]


def build_room(cpus: float, *, gpus: float = 0, memory: float = 64 * MEMORY, **labels: str):
    return NodeRoom({"CPU": cpus, "GPU": gpus, "memory": memory}, labels)


def test_needs_of_a_run_are_its_workers_decoders_and_evaluation(build_config: BuildConfig) -> None:
    config = build_config(
        "optim.clips_per_step=6",
        "cluster.num_workers=3",
        "cluster.cpus_per_worker=2",
        "cluster.num_decoders=4",
    )
    assert count_cores(list_needs(config)) == 3 * 2 + 4 + 1


def test_first_needs_are_the_fewest_workers_and_evaluation_only_where_it_is_beside(
    build_config: BuildConfig,
) -> None:
    settings = ["cluster.num_workers=[1, 4]", "optim.clips_per_step=8"]
    assert count_cores(list_first_needs(build_config(*settings))) == 2  # a worker, a decoder
    beside = build_config(*settings, "evaluation.every_checkpoints=1", "data.hold_back=2")
    assert count_cores(list_first_needs(beside)) == 3


@pytest.mark.parametrize(("cpus", "expected"), [(2, 0), (3, 1), (5, 1), (6, 2), (9, 3)])
def test_cores_of_one_node_hold_whole_trials_only(
    build_config: BuildConfig, cpus: int, expected: int
) -> None:
    needs = list_needs(build_config())  # a worker, a decoder, evaluation: a core each
    assert count_fitting(needs, [build_room(cpus)], most=10) == expected


def test_memory_limits_trials_where_cores_would_not(build_config: BuildConfig) -> None:
    room = build_room(100, memory=2.5 * MEMORY)
    assert count_fitting(list_needs(build_config()), [room], most=10) == 2


def test_a_worker_is_not_spread_over_nodes() -> None:
    needs = [Need("worker", {"CPU": 4.0})]
    assert count_fitting(needs, [build_room(3), build_room(3)], most=10) == 0
    assert count_fitting(needs, [build_room(4), build_room(9)], most=10) == 3


def test_workers_and_decoders_go_to_nodes_with_their_labels(build_config: BuildConfig) -> None:
    config = build_config(
        "cluster.train_labels={pool: train}", "cluster.decode_labels={pool: decode}"
    )
    rooms = [build_room(2, pool="train"), build_room(1, pool="decode")]
    assert count_fitting(list_needs(config), rooms, most=10) == 1
    assert count_fitting(list_needs(config), [build_room(9, pool="train")], most=10) == 0


def test_gpus_decide_when_there_are_cores_enough(build_config: BuildConfig) -> None:
    config = build_config("cluster.use_gpu=true", "cluster.num_workers=2")
    assert count_fitting(list_needs(config), [build_room(100, gpus=5)], most=10) == 2


def test_dead_nodes_hold_nothing() -> None:
    node = {"Resources": {"CPU": 4.0}, "Labels": {}}
    rooms = list_rooms([{**node, "Alive": False}, {**node, "Alive": True}])
    assert len(rooms) == 1


def test_no_wish_takes_all_that_fit_and_a_smaller_wish_is_kept(build_config: BuildConfig) -> None:
    config = build_config()
    assert choose_concurrency(config, [build_room(7)], wanted=None) == 2
    assert choose_concurrency(config, [build_room(7)], wanted=1) == 1


def test_a_cluster_too_small_for_one_trial_is_refused_with_numbers(
    build_config: BuildConfig,
) -> None:
    with pytest.raises(ClusterError) as caught:
        choose_concurrency(build_config(), [build_room(2)], wanted=None)
    assert "2 cores" in str(caught.value)
    assert "3 cores in all" in str(caught.value)


def test_more_at_once_than_fit_are_refused_with_what_does(build_config: BuildConfig) -> None:
    with pytest.raises(ClusterError, match="--max-concurrent 2"):
        choose_concurrency(build_config(), [build_room(7)], wanted=3)
