"""The arithmetic of `lssl-ray plan` for clusters that nobody here has: from 8 to 1,000 GPUs.

Nothing is measured: decoding is what docs/input_bench.md found on one core, the training step is
counted operations over what a GPU is assumed to reach, and the rest as `lssl-ray plan` has it.

    python bench/scale_arithmetic.py --gpu-tflops 150 --network-gbit 100
"""

import logging
from typing import Annotated, cast

import open_clip
import typer
from open_clip.transformer import VisionTransformer

from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.planning.estimate import Costs, estimate_run
from lssl_ray.planning.figures import Figure, assume
from lssl_ray.planning.ray_costs import RAY_COSTS
from lssl_ray.planning.shape import ClusterShape, build_cluster_shape
from lssl_ray.planning.work import (
    RunWork,
    count_checkpoint_bytes,
    count_clip_bytes,
    count_clip_flops,
    count_parameter_bytes,
)
from lssl_ray.video.recipe import ViewKind, ViewRecipe

MIB = 2**20
# The paper's views.
RECIPE = ViewRecipe(
    global_views=ViewKind(count=2, num_frames=8, size=224, area=(0.4, 1.0), window_share=1.0),
    local_views=ViewKind(count=8, num_frames=8, size=96, area=(0.05, 0.4), window_share=0.125),
    window_seconds=8.5,
    flip_probability=0.5,
    jitter_probability=0.8,
    jitter_strength=(0.4, 0.4, 0.2),
    grey_probability=0.2,
)
# docs/input_bench.md: child and actor together; the range is that of the rates beside it.
DECODE_SECONDS = Figure(0.0904, 0.085, 0.100, "measured", "docs/input_bench.md, 340x256, 10 s")
COLUMNS = (
    "GPUs", "decoders that keep up", "clips/s", "slowest part", "hours",
    "pixels into a node, Gbit/s", "blocks/s that workers could take", "segments", "s per segment",
)  # fmt: skip


def build_work(model: str, *, num_clips: int, clips_per_step: int, segment_units: int) -> RunWork:
    """One epoch of so many clips of the paper's views."""
    logging.disable(logging.WARNING)  # open_clip warns of the random weights that are wanted here
    visual = cast(VisionTransformer, open_clip.create_model(model).visual)
    encoder = VideoEncoder(visual, num_frames=RECIPE.global_views.num_frames)
    flops, weights = count_clip_flops(encoder, RECIPE), count_parameter_bytes(encoder)
    return RunWork(
        clips_per_step=clips_per_step,
        num_steps=-(-num_clips // clips_per_step),
        num_clips=num_clips,
        checkpoint_every=1000,
        segment_units=segment_units,
        overlaps=True,
        clip_bytes=count_clip_bytes(RECIPE),
        clip_flops=flops.total,
        backward_share=flops.backward / flops.total,
        gradient_bytes=weights,
        checkpoint_bytes=count_checkpoint_bytes(weights=weights, trained=weights),
    )


def main(
    model: Annotated[str, typer.Option(help="open_clip model name.")] = "ViT-B-16",
    gpus: Annotated[str, typer.Option(help="Comma-separated numbers of GPUs.")] = "8,64,256,1000",
    gpus_per_node: Annotated[int, typer.Option(help="Of a node.")] = 8,
    cores_per_node: Annotated[int, typer.Option(help="Of a node that decodes.")] = 64,
    clips_per_gpu: Annotated[int, typer.Option(help="Of a step.")] = 32,
    clips: Annotated[int, typer.Option(help="Of the run.")] = 10**8,
    gpu_tflops: Annotated[float, typer.Option(help="What a GPU reaches in the step.")] = 150.0,
    network_gbit: Annotated[float, typer.Option(help="Of a node, each way.")] = 100.0,
    segment_units: Annotated[int, typer.Option(help="cluster.segment_units")] = 10_000,
) -> None:
    print(f"| {' | '.join(COLUMNS)} |\n|{'--:|' * len(COLUMNS)}")
    work = None
    for number in (int(text) for text in gpus.split(",")):
        work = build_work(
            model, num_clips=clips, clips_per_step=clips_per_gpu * number,
            segment_units=segment_units,
        )  # fmt: skip
        step = assume(clips_per_gpu * work.clip_flops / (gpu_tflops * 1e12), "")
        costs = Costs(DECODE_SECONDS, step, assume(5e8, "a disk, checksums included"), RAY_COSTS)
        nodes = -(-number // gpus_per_node)

        def shape_of(decode_nodes: int, train_nodes: int = nodes) -> ClusterShape:
            return build_cluster_shape(
                train_nodes=train_nodes, gpus_per_node=gpus_per_node, decode_nodes=decode_nodes,
                cores_per_node=cores_per_node, cpus_per_worker=2, network_gbit=network_gbit,
            )  # fmt: skip

        needed = estimate_run(shape_of(1), work, costs).decoders_needed
        assert needed is not None
        estimate = estimate_run(shape_of(-(-int(needed.value) // cores_per_node)), work, costs)
        rate, workers = estimate.clips_per_second, nodes * gpus_per_node
        cells = (
            f"{workers}",
            f"{needed.value:.0f} ({needed.low:.0f} to {needed.high:.0f})",
            f"{rate.value:.0f} ({rate.low:.0f} to {rate.high:.0f})",
            estimate.bottleneck,
            f"{estimate.hours.value:.1f} ({estimate.hours.low:.1f} to {estimate.hours.high:.1f})",
            f"{rate.value / nodes * work.clip_bytes * 8 / 1e9:.2f}",
            f"{estimate.bounds['step'].value / clips_per_gpu:.0f}",
            f"{estimate.num_segments}",
            f"{estimate.segment_seconds.value:.0f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)
    assert work is not None
    print(
        f"\n{model}: {work.clip_flops / 1e9:.0f} GFLOP and {work.clip_bytes / MIB:.2f} MiB per "
        f"clip, gradients {work.gradient_bytes / MIB:.0f} MiB, a checkpoint "
        f"{work.checkpoint_bytes / MIB:.0f} MiB; a step of {clips_per_gpu} clips at "
        f"{gpu_tflops:g} TFLOP/s {clips_per_gpu * work.clip_flops / gpu_tflops / 1e12:.3f} s"
    )


if __name__ == "__main__":
    typer.run(main)
