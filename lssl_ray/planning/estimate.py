"""From measured costs and a cluster's shape to clips per second, hours and what holds them up.

Every part of the pipeline works at the same time as the others, so the slowest one sets the rate;
where decoding and training share cores, their core-seconds add up. The same arithmetic is done
three times: with every figure at its value, at its better and at its worse end.
"""

import math
from dataclasses import dataclass
from typing import Literal

from lssl_ray.planning.figures import Figure, count
from lssl_ray.planning.ray_costs import (
    BLOCK_MARGIN_BYTES,
    BLOCKS_IN_STORE,
    COORDINATOR_BYTES_PER_UNIT,
    MIN_STORE_BYTES,
    RayCosts,
)
from lssl_ray.planning.shape import (
    LOOPBACK_BYTES_PER_SECOND,
    PCIE_BYTES_PER_SECOND,
    ClusterShape,
)
from lssl_ray.planning.work import RunWork

Case = Literal["likely", "better", "worse"]
SECONDS_PER_HOUR = 3600
# Parts of the pipeline, and how their clips per second come about.
BOUNDS = {
    "decode": "decoders / core seconds of a clip",
    "step": "clips per step / (step + what the backward pass doesn't hide of summing gradients)",
    "cores": "cores, less Ray's / core seconds of a clip in decoding and training",
    "network in": "a training node's network / (pixels + gradients)",
    "network out": "decode nodes' network / pixels of a clip",
    "driver": "blocks that one process deals / workers x clips per step",
}


@dataclass(frozen=True)
class Costs:
    """What parts of the work take on the machines that are to do it.

    Attributes:
        decode_seconds: Of one core, for one clip and all its views.
        step_seconds: Of one worker alone, for its clips of a step; None when nobody knows.
        write_bytes_per_second: Of a checkpoint, checksums included.
        ray: Of Ray itself.
    """

    decode_seconds: Figure
    step_seconds: Figure | None
    write_bytes_per_second: Figure
    ray: RayCosts


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        bounds: Clips per second that each part allows, by its name.
        bottleneck: The part that allows least.
        clips_per_second: What it allows.
        hours: From the start to the last checkpoint, pauses included.
        node_hours: Of training nodes, nodes that only decode, and a head of a cluster.
        decoders_needed: So that decoding allows what all other parts do; None when the step's time
            is not known.
        checkpoint_seconds: For one checkpoint; training stands still.
        num_checkpoints: Of the whole run.
        num_segments: How often the data pipeline starts.
        segment_seconds: Training between two such starts.
        store_bytes: Most that decoded blocks take in all object stores together.
        coordinator_bytes: What the driver's node keeps of a segment's blocks at its end.
    """

    bounds: dict[str, Figure]
    bottleneck: str
    clips_per_second: Figure
    hours: Figure
    node_hours: Figure
    decoders_needed: Figure | None
    checkpoint_seconds: Figure
    num_checkpoints: int
    num_segments: int
    segment_seconds: Figure
    store_bytes: Figure
    coordinator_bytes: Figure


def estimate_run(shape: ClusterShape, work: RunWork, costs: Costs) -> Estimate:
    """Predict a run.

    Args:
        shape: Where; its workers share `work.clips_per_step`.
        work: What.
        costs: At what price.
    """
    cases: tuple[Case, ...] = ("likely", "better", "worse")
    bounds = {case: compute_bounds(shape, work, costs, case=case) for case in cases}
    rates = {case: min(bounds[case].values()) for case in cases}
    checkpoint = {case: _compute_checkpoint_seconds(shape, work, costs, case) for case in cases}
    num_checkpoints = -(-work.num_steps // work.checkpoint_every)
    segment_steps = min(work.num_steps, max(1, work.segment_units // shape.num_workers))
    num_segments = -(-work.num_steps // segment_steps)
    hours = {
        case: (
            work.num_clips / rates[case]
            + _pick_time(costs.ray.start_seconds, case)
            + (num_segments - 1) * _pick_time(costs.ray.pause_seconds, case)
            + num_checkpoints * checkpoint[case]
        )
        / SECONDS_PER_HOUR
        for case in cases
    }
    num_nodes = 1 if shape.network is None else shape.train_nodes + shape.decode_nodes + 1
    needed = {case: _count_decoders_needed(bounds[case], costs, case) for case in cases}
    segment_clips = segment_steps * work.clips_per_step
    return Estimate(
        bounds={
            name: _join({case: bounds[case][name] for case in cases}, BOUNDS[name])
            for name in bounds["likely"]
        },
        bottleneck=min(bounds["likely"], key=bounds["likely"].__getitem__),
        clips_per_second=_join(rates, "what the slowest part allows"),
        hours=_join(hours, "training, start, pauses between segments, checkpoints"),
        node_hours=_join(
            {case: num_nodes * value for case, value in hours.items()},
            "one machine" if shape.network is None else f"{num_nodes} nodes, one of them a head",
        ),
        decoders_needed=(
            None if costs.step_seconds is None else _join(needed, "one core each, kept busy")
        ),
        checkpoint_seconds=_join(checkpoint, "write and checksum, then copy to the run's storage"),
        num_checkpoints=num_checkpoints,
        num_segments=num_segments,
        segment_seconds=_join(
            {case: segment_clips / rates[case] for case in cases},
            f"{segment_steps} steps, cluster.segment_units={work.segment_units}",
        ),
        store_bytes=count(count_store_bytes(shape, work), "the limit that is set for Ray Data"),
        coordinator_bytes=count(
            COORDINATOR_BYTES_PER_UNIT * segment_steps * shape.num_workers,
            "15 KiB per worker-step, docs/data_path.md",
        ),
    )


def compute_bounds(
    shape: ClusterShape, work: RunWork, costs: Costs, *, case: Case
) -> dict[str, float]:
    """Clips per second that each part of the pipeline allows, by the names of `BOUNDS`.

    What the shape does not have is left out: shared cores, a network between nodes, a known step.
    """
    decode_seconds = _pick_time(costs.decode_seconds, case)
    bounds = {"decode": shape.num_decoders / decode_seconds}
    core_seconds = decode_seconds
    if costs.step_seconds is not None:
        alone = _pick_time(costs.step_seconds, case)
        together = alone + _compute_exposed_seconds(shape, work, alone, case)
        bounds["step"] = work.clips_per_step / together
        # A worker on a GPU keeps one core busy with launching kernels.
        cores = 1 if shape.on_gpu else shape.cpus_per_worker
        core_seconds += shape.num_workers * cores * alone / work.clips_per_step
    if shape.decode_nodes == 0:
        num_cores = shape.train_nodes * shape.cores_per_node
        bounds["cores"] = (num_cores - _pick_time(costs.ray.cores, case)) / core_seconds
    if shape.network is not None:
        bounds |= _compute_network_bounds(shape, work, case)
    blocks = _pick_rate(costs.ray.blocks_per_second, case)
    bounds["driver"] = blocks * work.clips_per_step / shape.num_workers
    return bounds


def compute_sum_seconds(shape: ClusterShape, work: RunWork, *, case: Case) -> float:
    """Seconds to sum a step's gradients over all workers, in a ring.

    Each worker sends and receives 2 (n - 1) / n of them; a ring over nodes crosses the network of
    each node once in either direction, however many workers it has.
    """
    num_workers = shape.num_workers
    num_bytes = 2 * (num_workers - 1) / num_workers * work.gradient_bytes
    if shape.train_nodes > 1:
        assert shape.network is not None
        return num_bytes / _pick_rate(shape.network, case)
    return num_bytes / (PCIE_BYTES_PER_SECOND if shape.on_gpu else LOOPBACK_BYTES_PER_SECOND)


def _compute_exposed_seconds(
    shape: ClusterShape, work: RunWork, step_seconds: float, case: Case
) -> float:
    """The part of that which the backward pass does not hide: at worst, all of it."""
    seconds = compute_sum_seconds(shape, work, case=case)
    hidden = work.backward_share * step_seconds if work.overlaps and case != "worse" else 0.0
    return max(0.0, seconds - hidden)


def _compute_network_bounds(shape: ClusterShape, work: RunWork, case: Case) -> dict[str, float]:
    assert shape.network is not None
    rate = _pick_rate(shape.network, case)
    node_clips = work.clips_per_step / shape.train_nodes
    received = node_clips * work.clip_bytes * shape.remote_share
    if shape.train_nodes > 1:
        received += rate * compute_sum_seconds(shape, work, case=case)
    bounds = {"network in": work.clips_per_step * rate / received} if received else {}
    if shape.decode_nodes:
        bounds["network out"] = shape.decode_nodes * rate / work.clip_bytes
    return bounds


def _compute_checkpoint_seconds(
    shape: ClusterShape, work: RunWork, costs: Costs, case: Case
) -> float:
    write = _pick_rate(costs.write_bytes_per_second, case)
    # Ray copies what rank 0 wrote: through the network, or on the same disk.
    copy = write if shape.network is None else _pick_rate(shape.network, case)
    return work.checkpoint_bytes / write + work.checkpoint_bytes / copy


def _count_decoders_needed(bounds: dict[str, float], costs: Costs, case: Case) -> float:
    # More decoders bring their nodes' network with them.
    grown = ("decode", "cores", "network out")
    others = min(rate for name, rate in bounds.items() if name not in grown)
    return math.ceil(others * _pick_time(costs.decode_seconds, case))


def count_store_bytes(shape: ClusterShape, work: RunWork) -> int:
    """The limit that is set for decoded blocks, over all nodes; see `cluster/data.py`."""
    largest_share = -(-work.clips_per_step // shape.num_workers)
    block = largest_share * work.clip_bytes + BLOCK_MARGIN_BYTES
    num_blocks = BLOCKS_IN_STORE * (shape.num_decoders + shape.num_workers)
    return max(MIN_STORE_BYTES, num_blocks * block)


def _pick_time(figure: Figure, case: Case) -> float:
    """Less is better."""
    return {"likely": figure.value, "better": figure.low, "worse": figure.high}[case]


def _pick_rate(figure: Figure, case: Case) -> float:
    """More is better."""
    return {"likely": figure.value, "better": figure.high, "worse": figure.low}[case]


def _join(cases: dict[Case, float], note: str) -> Figure:
    return Figure(cases["likely"], min(cases.values()), max(cases.values()), "computed", note)
