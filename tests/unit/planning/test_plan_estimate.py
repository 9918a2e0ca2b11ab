"""The arithmetic of a plan, against cases worked out by hand."""

import math
from dataclasses import replace

import pytest

from lssl_ray.planning.estimate import Costs, compute_bounds, compute_sum_seconds, estimate_run
from lssl_ray.planning.figures import Figure, assume
from lssl_ray.planning.ray_costs import RayCosts
from lssl_ray.planning.shape import ClusterShape, build_cluster_shape, build_machine_shape
from lssl_ray.planning.work import RunWork

FREE_RAY = RayCosts(
    cores=assume(0.0, ""),
    blocks_per_second=assume(1e9, ""),
    start_seconds=assume(0.0, ""),
    pause_seconds=assume(0.0, ""),
)
RAY = RayCosts(
    cores=assume(0.5, ""),
    blocks_per_second=assume(100.0, ""),
    start_seconds=assume(10.0, ""),
    pause_seconds=assume(20.0, ""),
)
WORK = RunWork(
    clips_per_step=64,
    num_steps=1000,
    num_clips=64_000,
    checkpoint_every=300,
    segment_units=2000,
    overlaps=True,
    clip_bytes=10**6,
    clip_flops=1e9,
    backward_share=0.5,
    gradient_bytes=4 * 10**8,
    checkpoint_bytes=10**9,
)
# Two nodes of four GPUs, three nodes of ten cores that decode, 1e9 bytes/s between them.
CLUSTER = ClusterShape(
    train_nodes=2,
    workers_per_node=4,
    on_gpu=True,
    cpus_per_worker=2,
    decode_nodes=3,
    num_decoders=30,
    cores_per_node=10,
    network=assume(1e9, ""),
)
LAPTOP = build_machine_shape(
    num_workers=2, on_gpu=False, cpus_per_worker=1, num_decoders=2, num_cores=2
)


def build_costs(decode: float, step: float | None, ray: RayCosts = FREE_RAY) -> Costs:
    """Costs without a range; checkpoints are written at 5e8 bytes/s."""
    return Costs(
        decode_seconds=assume(decode, ""),
        step_seconds=None if step is None else assume(step, ""),
        write_bytes_per_second=assume(5e8, ""),
        ray=ray,
    )


def test_bounds_on_shared_cores_add_the_core_seconds_of_both() -> None:
    work = replace(WORK, clips_per_step=8, gradient_bytes=0)
    bounds = compute_bounds(LAPTOP, work, build_costs(0.1, 0.4), case="likely")
    assert bounds["decode"] == pytest.approx(20.0)  # 2 decoders, 0.1 s
    assert bounds["step"] == pytest.approx(20.0)  # 8 clips in 0.4 s
    # A clip takes 0.1 s to decode and 2 workers x 0.4 s / 8 clips to train on: 0.2 s of 2 cores.
    assert bounds["cores"] == pytest.approx(10.0)
    costs = build_costs(0.1, 0.4, ray=RAY)
    assert compute_bounds(LAPTOP, work, costs, case="likely")["cores"] == pytest.approx(7.5)
    assert estimate_run(LAPTOP, work, costs).bottleneck == "cores"


def test_bounds_on_a_cluster_equal_those_by_hand() -> None:
    bounds = compute_bounds(CLUSTER, WORK, build_costs(0.1, 0.5, ray=RAY), case="likely")
    # 2 x 7/8 x 4e8 bytes cross each node: 0.7 s, of which half of a step of 0.5 s hides 0.25.
    assert bounds["step"] == pytest.approx(64 / 0.95)
    assert bounds["decode"] == pytest.approx(300.0)
    assert bounds["network in"] == pytest.approx(64 / (32 * 1e6 / 1e9 + 0.7))
    assert bounds["network out"] == pytest.approx(3000.0)
    assert bounds["driver"] == pytest.approx(100 * 8)  # 8 clips per block
    assert "cores" not in bounds


def test_sum_of_gradients_is_not_hidden_at_worst_nor_with_parts_of_a_batch() -> None:
    costs = build_costs(0.1, 0.5)
    worse = compute_bounds(CLUSTER, WORK, costs, case="worse")["step"]
    parts = compute_bounds(CLUSTER, replace(WORK, overlaps=False), costs, case="likely")["step"]
    assert worse == pytest.approx(64 / 1.2)
    assert parts == pytest.approx(64 / 1.2)


def test_sum_of_gradients_costs_nothing_for_one_worker() -> None:
    alone = replace(LAPTOP, workers_per_node=1)
    assert compute_sum_seconds(alone, WORK, case="likely") == 0.0
    assert compute_sum_seconds(LAPTOP, WORK, case="likely") == pytest.approx(0.4)  # 4e8 at 1e9 B/s


def test_decoders_on_training_nodes_send_only_what_crosses_nodes() -> None:
    shared = replace(CLUSTER, decode_nodes=0, num_decoders=4)
    work = replace(WORK, gradient_bytes=0)
    bounds = compute_bounds(shared, work, build_costs(0.1, 0.5), case="likely")
    assert bounds["network in"] == pytest.approx(64 / (16 * 1e6 / 1e9))  # half of a node's 32
    assert "network out" not in bounds
    # 20 cores; a clip takes 0.1 s to decode, and 8 workers keep a core each busy for 0.5 s / 64.
    assert bounds["cores"] == pytest.approx(20 / (0.1 + 8 * 0.5 / 64))


def test_estimate_hours_add_start_pauses_and_checkpoints() -> None:
    estimate = estimate_run(CLUSTER, WORK, build_costs(0.1, 0.5, ray=RAY))
    assert estimate.bottleneck == "step"
    assert estimate.clips_per_second.value == pytest.approx(64 / 0.95)
    # 2000 units are 250 steps of 8 workers: 4 segments, 3 pauses. 4 checkpoints: the last is short.
    assert (estimate.num_segments, estimate.num_checkpoints) == (4, 4)
    assert estimate.checkpoint_seconds.value == pytest.approx(2.0 + 1.0)  # disk, then network
    seconds = 1000 * 0.95 + 10 + 3 * 20 + 4 * 3
    assert estimate.hours.value == pytest.approx(seconds / 3600)
    assert estimate.node_hours.value == pytest.approx(6 * seconds / 3600)  # with the head
    assert estimate.segment_seconds.value == pytest.approx(250 * 0.95)
    assert estimate.coordinator_bytes.value == 2000 * 15 * 1024
    assert estimate.decoders_needed is not None
    assert estimate.decoders_needed.value == math.ceil(64 / 0.95 * 0.1)


def test_decoders_needed_are_not_held_back_by_the_few_nodes_there_are() -> None:
    few = replace(CLUSTER, decode_nodes=1, num_decoders=10)
    work = replace(WORK, clip_bytes=10**8, gradient_bytes=0)  # ten clips/s leave one decode node
    bounds = compute_bounds(few, work, build_costs(1.0, 4.0), case="likely")
    assert bounds["network out"] == pytest.approx(10.0)
    assert bounds["step"] == pytest.approx(16.0)
    needed = estimate_run(few, work, build_costs(1.0, 4.0)).decoders_needed
    assert needed is not None
    assert needed.value == 16


def test_estimate_without_a_known_step_is_what_data_allow() -> None:
    estimate = estimate_run(CLUSTER, replace(WORK, gradient_bytes=0), build_costs(0.1, None))
    assert estimate.decoders_needed is None
    assert "step" not in estimate.bounds
    assert (estimate.bottleneck, estimate.clips_per_second.value) == ("decode", 300.0)


def test_estimate_range_covers_the_ranges_of_its_costs() -> None:
    costs = replace(
        build_costs(0.1, 0.4),
        decode_seconds=Figure(0.1, 0.05, 0.2, "measured"),
        step_seconds=Figure(0.4, 0.2, 0.8, "measured"),
    )
    estimate = estimate_run(LAPTOP, replace(WORK, clips_per_step=8, gradient_bytes=0), costs)
    rate = estimate.clips_per_second
    assert (rate.low, rate.value, rate.high) == pytest.approx((5.0, 10.0, 20.0))
    assert estimate.hours.low < estimate.hours.value < estimate.hours.high


def test_estimate_more_decoders_help_until_another_part_is_slowest() -> None:
    costs = build_costs(1.0, 0.5)
    rates = [
        estimate_run(replace(CLUSTER, num_decoders=n), WORK, costs).clips_per_second.value
        for n in (10, 30, 67, 68, 100)
    ]
    assert rates == pytest.approx([10.0, 30.0, 67.0, 64 / 0.95, 64 / 0.95])


def test_estimate_of_a_thousand_workers_shows_segments_too_short_for_them() -> None:
    shape = build_cluster_shape(
        train_nodes=125, gpus_per_node=8, decode_nodes=100, cores_per_node=64,
        cpus_per_worker=2, network_gbit=100.0,
    )  # fmt: skip
    work = replace(WORK, clips_per_step=8000, num_clips=8_000_000, segment_units=10_000)
    estimate = estimate_run(shape, work, build_costs(0.1, 1.0, ray=RAY))
    assert shape.num_workers == 1000
    assert estimate.num_segments == 100  # of ten steps each
    assert estimate.bottleneck == "driver"  # 1000 blocks per step, 100 blocks per second
    assert estimate.clips_per_second.value == pytest.approx(800.0)
