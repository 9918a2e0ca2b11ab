"""Features through Ray Data and in one process: the same videos, the same numbers."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import tiny
import torch

from lssl_ray.cluster.engine import RayEngine
from lssl_ray.config import RunConfig
from lssl_ray.engine import FeatureJob, LocalEngine
from lssl_ray.evaluation.views import EvaluationView
from lssl_ray.video.manifest import build_manifest, load_manifest

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    # Ray's own, in this process: its settings, its sockets, its subprocesses.
    pytest.mark.filterwarnings("default"),
]

VIEWS = {
    "slow": EvaluationView(num_frames=2, size=32, num_clips=2, num_crops=3),
    "fast": EvaluationView(num_frames=5, size=16),
}


@pytest.fixture
def ray_engine(build_config: Callable[..., RunConfig]) -> Iterator[RayEngine]:
    engine = RayEngine(build_config())
    yield engine
    engine.close()


@contextmanager
def watch_free_memory() -> Iterator[list[float]]:
    """Bytes that Ray had not yet promised to anyone, as seen again and again meanwhile.

    By a thread of its own: decoders start (seconds), decode a small set (less) and end before the
    first progress is heard.
    """
    free: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            # Ray leaves a resource out of its answer where none of it is free.
            free.append(ray.available_resources().get("memory", 0.0))
            done.wait(0.05)

    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(watch)
        try:
            yield free
        finally:
            done.set()
            watched.result()


def test_extract_features_on_ray_equals_local(
    build_config: Callable[..., RunConfig],
    videos: tiny.VideoSet,
    tmp_path: Path,
    ray_engine: RayEngine,
) -> None:
    records = load_manifest(str(videos.manifest)).records()
    path = tmp_path / "cut.mp4"
    path.write_bytes(Path(records[3].path).read_bytes())
    records[3] = replace(records[3], path=str(tiny.truncate_video(path)))
    job = FeatureJob(
        config=build_config(),
        manifest=build_manifest(records, root="/"),
        views=VIEWS,
        weights={"clip": None},
    )
    counts: list[tuple[int, ...]] = []
    with watch_free_memory() as free:
        ours = ray_engine.extract_features(job, on_progress=lambda *count: counts.append(count))
    # Set aside while decoders are at work, as in training.
    set_aside = ray.cluster_resources()["memory"] - min(free)
    assert set_aside >= job.config.cluster.decode_memory_mib * 2**20
    theirs = LocalEngine().extract_features(job)
    assert ours.video_ids == theirs.video_ids and len(ours.video_ids) == len(records) - 1
    for view in VIEWS:
        for name in ("joint", "pooled"):
            one, other = (getattr(table.features["clip"][view], name) for table in (ours, theirs))
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert [failure.video_id for failure in ours.failures] == [records[3].video_id]
    assert ours.failures[0].reason == theirs.failures[0].reason
    assert ours.failures[0].detail == theirs.failures[0].detail
    assert counts[-1] == (len(records), len(records), 1)
