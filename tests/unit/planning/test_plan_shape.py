"""Shapes of clusters, and the constants that planning shares with the code that runs on Ray."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lssl_ray.cluster.data import ClipStream, build_execution_options
from lssl_ray.errors import ConfigError
from lssl_ray.model.clip import ClipModel
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.planning.estimate import count_store_bytes
from lssl_ray.planning.shape import build_cluster_shape, build_machine_shape
from lssl_ray.planning.work import RunWork, count_clip_bytes, count_clip_flops
from lssl_ray.video.order import RunPlan
from lssl_ray.video.recipe import DecodeSettings, ViewKind, ViewRecipe

RECIPE = ViewRecipe(
    global_views=ViewKind(count=2, num_frames=4, size=32, area=(0.4, 1.0), window_share=1.0),
    local_views=ViewKind(count=3, num_frames=2, size=16, area=(0.1, 0.4), window_share=0.5),
    window_seconds=1.0,
    flip_probability=0.5,
    jitter_probability=0.5,
    jitter_strength=(0.4, 0.4, 0.2),
    grey_probability=0.2,
)
OPTIONS = {
    "train_nodes": 2,
    "gpus_per_node": 4,
    "decode_nodes": 3,
    "cores_per_node": 16,
    "cpus_per_worker": 2,
    "network_gbit": 25.0,
}


def test_cluster_shape_decode_nodes_decode_on_every_core() -> None:
    shape = build_cluster_shape(**OPTIONS)
    assert (shape.num_workers, shape.num_decoders, shape.on_gpu) == (8, 48, True)
    assert shape.network is not None
    assert shape.network.value == 25e9 / 8
    assert shape.remote_share == 1.0


def test_cluster_shape_without_decode_nodes_uses_the_cores_that_workers_leave() -> None:
    shape = build_cluster_shape(**{**OPTIONS, "decode_nodes": 0})
    assert shape.num_decoders == 2 * (16 - 4 * 2)
    assert shape.remote_share == 0.5


def test_cluster_shape_without_gpus_trains_one_worker_per_node() -> None:
    shape = build_cluster_shape(**{**OPTIONS, "gpus_per_node": 0, "network_gbit": None})
    assert (shape.num_workers, shape.on_gpu) == (2, False)
    assert shape.network is not None
    assert "10 Gbit" in shape.network.note  # said, because nobody gave it


@pytest.mark.parametrize(
    "change",
    [{"cores_per_node": 8, "decode_nodes": 0}, {"cores_per_node": 4}],
    ids=["no core to decode on", "workers don't fit"],
)
def test_cluster_shape_that_does_not_fit_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="--cores-per-node"):
        build_cluster_shape(**{**OPTIONS, **change})


def build_stream(*, num_workers: int, num_decoders: int) -> ClipStream:
    return ClipStream(
        plan=RunPlan(num_videos=10, num_positions=100, seed=0),
        start_position=0,
        num_steps=1,
        num_workers=num_workers,
        clips_per_step=4 * num_workers,
        recipe=RECIPE,
        settings=DecodeSettings(deadline_seconds=1.0, recycle_after=1, short_side=64),
        num_decoders=num_decoders,
        decode_memory_mib=1024,
        max_segment_units=10,
    )


@pytest.mark.parametrize(("num_workers", "num_decoders"), [(1, 1), (8, 30)])
def test_store_and_clip_bytes_are_those_of_the_ray_pipeline(
    num_workers: int, num_decoders: int
) -> None:
    stream = build_stream(num_workers=num_workers, num_decoders=num_decoders)
    shape = build_machine_shape(
        num_workers=num_workers, on_gpu=False, cpus_per_worker=1, num_decoders=num_decoders,
        num_cores=2,
    )  # fmt: skip
    work = RunWork(
        clips_per_step=4 * num_workers, num_steps=1, num_clips=1, checkpoint_every=1,
        segment_units=1, overlaps=True, clip_bytes=count_clip_bytes(RECIPE), clip_flops=1.0,
        backward_share=0.5, gradient_bytes=1, checkpoint_bytes=1,
    )  # fmt: skip
    assert 4 * work.clip_bytes == stream.block_bytes
    limit = build_execution_options(stream, labels={}).resource_limits.object_store_memory
    assert count_store_bytes(shape, work) == limit


def test_clip_flops_are_those_that_torch_counts(tiny_clip: ClipModel) -> None:
    encoder = VideoEncoder(tiny_clip.visual, num_frames=4)  # type: ignore[arg-type]
    flops = count_clip_flops(encoder, RECIPE)
    for views, counted in (
        (RECIPE.global_views, flops.student_global),
        (RECIPE.local_views, flops.student_local),
    ):
        pixels = torch.zeros(views.count, views.num_frames, 3, views.size, views.size)
        # Of attention torch counts only what is done as plain matrix products.
        with (
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
            torch.no_grad(),
        ):
            encoder(pixels)
        assert counter.get_total_flops() == counted
    forward = flops.student_global + flops.student_local
    assert flops.total == 3 * forward + flops.student_global


def test_clip_flops_grow_with_views_and_frames(tiny_clip: ClipModel) -> None:
    encoder = VideoEncoder(tiny_clip.visual, num_frames=4)  # type: ignore[arg-type]
    more = replace(RECIPE, global_views=replace(RECIPE.global_views, count=4))
    before, after = count_clip_flops(encoder, RECIPE), count_clip_flops(encoder, more)
    assert after.student_global == 2 * before.student_global
    assert after.student_local == before.student_local
