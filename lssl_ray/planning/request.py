"""`lssl-ray plan`: from a recipe and a cluster's shape to an estimate."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from lssl_ray import build
from lssl_ray.config import RunConfig, load_config
from lssl_ray.errors import ConfigError
from lssl_ray.planning.calibration import (
    DecodeCalibration,
    count_cores,
    measure_checkpoint,
    measure_steps,
)
from lssl_ray.planning.estimate import Costs, Estimate, estimate_run
from lssl_ray.planning.figures import Figure, assume
from lssl_ray.planning.ray_costs import RAY_COSTS
from lssl_ray.planning.rehearsal import (
    build_step,
    count_work,
    draw_space,
    load_videos,
    measure_decoder,
)
from lssl_ray.planning.shape import ClusterShape, build_cluster_shape, build_machine_shape
from lssl_ray.planning.work import RunWork

DECODE_SHARE = 0.4  # of the time to measure; steps are longer and fewer


class Display(Protocol):
    """Shows a person what is being done."""

    def show_phase(self, text: str) -> None:
        """A new part begins."""


@dataclass(frozen=True)
class PlanRequest:
    """What is asked.

    Attributes:
        config: Recipe.
        overrides: `dotted.key=value`.
        manifest: Takes the place of the recipe's.
        train_nodes: Of a cluster; this and the next four None for this machine.
        gpus_per_node: Of a training node; 0 for training on cores.
        decode_nodes: Nodes that only decode.
        cores_per_node: Of either kind of node.
        network_gbit: Of a node, Gbit/s each way.
        seconds: To measure for.
        step_seconds: Of a worker's step, where it can't be measured here.
        gpu_tflops: What a GPU reaches in it, instead; 10^12 operations per second.
    """

    config: Path | None
    overrides: tuple[str, ...] = ()
    manifest: Path | None = None
    train_nodes: int | None = None
    gpus_per_node: int | None = None
    decode_nodes: int | None = None
    cores_per_node: int | None = None
    network_gbit: float | None = None
    seconds: float = 60.0
    step_seconds: float | None = None
    gpu_tflops: float | None = None


@dataclass(frozen=True)
class Plan:
    """What came out, with all that it rests on."""

    shape: ClusterShape
    work: RunWork
    costs: Costs
    estimate: Estimate
    decoder_child_mib: float | None
    num_cores_here: int


def compute_plan(request: PlanRequest, *, display: Display) -> Plan:
    """Measure here, and estimate the run on the shape that is asked for.

    Raises:
        LsslError: A recipe, manifest or CLIP that training would refuse too, a shape whose workers
            can't share a step, contradicting options.
    """
    overrides = list(request.overrides)
    if request.manifest is not None:
        overrides.append(f"data.manifest={json.dumps(str(request.manifest))}")
    config = load_config(request.config, overrides)
    shape = choose_shape(request, config)
    _check_shares(request, config, shape)
    display.show_phase("Reading the manifest and CLIP")
    manifest = load_videos(config)
    tower = build.build_image_tower(config)
    device = torch.device("cuda" if shape.on_gpu and torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    try:
        parts = build.build_train_parts(
            config, tower, draw_space(config, tower), num_videos=len(manifest), device=device
        )
        work = count_work(config, parts, num_videos=len(manifest))
        budget = DECODE_SHARE * request.seconds
        display.show_phase(f"Measuring one decoder for about {budget:.0f} s")
        decoding = measure_decoder(config, manifest, budget_seconds=budget)
        step = _find_step_seconds(request, config, shape, work, parts, decoding, device, display)
        display.show_phase("Measuring a checkpoint")
        write = measure_checkpoint(parts.task, parts.optimizer)
    finally:
        torch.set_num_threads(threads)
    costs = Costs(
        decode_seconds=decoding.summarise(),
        step_seconds=step,
        write_bytes_per_second=write,
        ray=RAY_COSTS,
    )
    return Plan(
        shape=shape,
        work=work,
        costs=costs,
        estimate=estimate_run(shape, work, costs),
        decoder_child_mib=decoding.child_mib,
        num_cores_here=count_cores(),
    )


def choose_shape(request: PlanRequest, config: RunConfig) -> ClusterShape:
    """The cluster of the options, or this machine when there are none.

    Raises:
        ConfigError: Workers and decoders don't fit on the nodes.
    """
    cluster = config.cluster
    options = (
        request.train_nodes,
        request.gpus_per_node,
        request.decode_nodes,
        request.cores_per_node,
        request.network_gbit,
    )
    if all(option is None for option in options):
        return build_machine_shape(
            num_workers=cluster.most_workers,
            on_gpu=cluster.use_gpu,
            cpus_per_worker=cluster.cpus_per_worker,
            num_decoders=cluster.num_decoders,
            num_cores=count_cores(),
        )
    gpus = int(cluster.use_gpu) if request.gpus_per_node is None else request.gpus_per_node
    return build_cluster_shape(
        train_nodes=request.train_nodes or 1,
        gpus_per_node=gpus,
        decode_nodes=request.decode_nodes or 0,
        cores_per_node=request.cores_per_node or count_cores(),
        cpus_per_worker=cluster.cpus_per_worker,
        network_gbit=request.network_gbit,
    )


def _check_shares(request: PlanRequest, config: RunConfig, shape: ClusterShape) -> None:
    if request.step_seconds is not None and request.gpu_tflops is not None:
        raise ConfigError(
            "--step-seconds and --gpu-tflops say the same thing twice; leave out one of the two."
        )
    clips, workers = config.optim.clips_per_step, shape.num_workers
    if workers > clips:
        raise ConfigError(
            f"optim.clips_per_step={clips} can't be shared by the {workers} workers of this shape; "
            f"each needs a clip: --set optim.clips_per_step={workers} or more."
        )


def _find_step_seconds(
    request: PlanRequest,
    config: RunConfig,
    shape: ClusterShape,
    work: RunWork,
    parts: build.TrainParts,
    decoding: DecodeCalibration,
    device: torch.device,
    display: Display,
) -> Figure | None:
    """Measured here, or as the user says; None for a GPU that isn't here."""
    num_clips = -(-config.optim.clips_per_step // shape.num_workers)  # the largest share
    if request.step_seconds is not None:
        return assume(request.step_seconds, f"--step-seconds, {num_clips} clips")
    if request.gpu_tflops is not None:
        seconds = num_clips * work.clip_flops / (request.gpu_tflops * 1e12)
        return assume(seconds, f"--gpu-tflops {request.gpu_tflops:g} for {num_clips} clips")
    if shape.on_gpu and device.type != "cuda":
        return None
    budget = (1 - DECODE_SHARE) * request.seconds
    display.show_phase(f"Measuring training steps for about {budget:.0f} s")
    torch.set_num_threads(shape.cpus_per_worker)
    step = build_step(config, parts, decoding.clips, device)
    calibration = measure_steps(step, num_clips=num_clips, device=device, budget_seconds=budget)
    return calibration.predict(num_clips)
