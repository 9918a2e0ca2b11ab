"""Features of real files: what decodes is encoded once, what does not is listed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tiny
import torch
from open_clip.transformer import VisionTransformer

from lssl_ray.config import RunConfig
from lssl_ray.engine import FeatureJob, LocalEngine
from lssl_ray.evaluation.features import decode_view, encode_view_features, encode_views
from lssl_ray.evaluation.views import EvaluationView
from lssl_ray.model.clip import ClipModel
from lssl_ray.model.pixels import to_pixels
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.types import ClipFailure
from lssl_ray.video.isolation import DecodeProcess
from lssl_ray.video.manifest import build_manifest, load_manifest

VIEW = EvaluationView(num_frames=3, size=32)
FAST_VIEW = EvaluationView(num_frames=5, size=16, num_clips=2, num_crops=3)


@pytest.fixture(scope="module")
def process() -> Iterator[DecodeProcess]:
    with DecodeProcess(deadline_seconds=60.0) as process:
        yield process


def test_decode_view_shows_the_centre_at_even_times(
    videos: tiny.VideoSet, process: DecodeProcess
) -> None:
    record = next(
        r for r in load_manifest(str(videos.manifest)).records() if r.label == "brightening"
    )
    frames = decode_view(process, record, VIEW)
    assert isinstance(frames, np.ndarray) and frames.dtype == np.uint8
    assert frames.shape == (3, 32, 32, 3)
    painted = tiny.paint_frames("brightening", seed=int(Path(record.path).stem))
    last = tiny.NUM_FRAMES - 1
    for row, index in enumerate((0, (last + 1) // 2, last)):
        # Uniform pictures: only colour conversion and the codec stand between.
        assert np.abs(frames[row].astype(int) - painted[index, 0, 0].astype(int)).max() <= 6


def test_decode_view_undecodable_video_is_a_failure(
    videos: tiny.VideoSet, process: DecodeProcess, tmp_path: Path
) -> None:
    record = load_manifest(str(videos.manifest)).row(0)
    path = tmp_path / "cut.mp4"
    path.write_bytes(Path(record.path).read_bytes())
    failure = decode_view(process, replace(record, path=str(tiny.truncate_video(path))), VIEW)
    assert isinstance(failure, ClipFailure)
    assert failure.video_id == record.video_id and failure.path == str(path)
    assert failure.reason in ("not_a_video", "decode_failed", "no_frames")


def test_encode_views_equals_frame_averaged_clip(tiny_clip: ClipModel) -> None:
    assert isinstance(tiny_clip.visual, VisionTransformer)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 3, 32, 32, 3), generator=generator, dtype=torch.uint8)
    encoder = VideoEncoder(tiny_clip.visual, num_frames=3).eval()
    actual = encode_views(encoder, frames, mean=tiny_clip.mean, std=tiny_clip.std)
    pixels = (frames / 255 - torch.tensor(tiny_clip.mean)) / torch.tensor(tiny_clip.std)
    each = tiny_clip.visual(pixels.flatten(0, 1).permute(0, 3, 1, 2))
    mean = (each / each.norm(dim=1, keepdim=True)).unflatten(0, (2, 3)).mean(dim=1)
    torch.testing.assert_close(actual, mean / mean.norm(dim=1, keepdim=True), rtol=0, atol=1e-5)


@pytest.mark.parametrize("cls", ["per_frame", "shared"])
def test_encode_view_features_gives_what_two_forward_passes_give(
    tiny_clip: ClipModel, cls: Literal["per_frame", "shared"]
) -> None:
    assert isinstance(tiny_clip.visual, VisionTransformer)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 3, 4, 16, 16, 3), generator=generator, dtype=torch.uint8)
    encoder = VideoEncoder(tiny_clip.visual, num_frames=4, cls=cls).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        features = encode_view_features(encoder, frames, mean=tiny_clip.mean, std=tiny_clip.std)
        for video in range(2):
            for view in range(3):
                pixels = to_pixels(
                    frames[video, view][None], mean=tiny_clip.mean, std=tiny_clip.std
                )
                joint, pooled = encoder(pixels)[0], encoder.encode_pooled(pixels)[0]
                torch.testing.assert_close(features.joint[video, view], joint, rtol=0, atol=1e-5)
                torch.testing.assert_close(features.pooled[video, view], pooled, rtol=0, atol=1e-5)


def test_extract_features_lists_the_undecodable_and_encodes_the_rest(
    build_config: Callable[..., RunConfig], videos: tiny.VideoSet, tmp_path: Path
) -> None:
    config = build_config()
    records = load_manifest(str(videos.manifest)).records()
    path = tmp_path / "cut.mp4"
    path.write_bytes(Path(records[2].path).read_bytes())
    damaged = [*records]
    damaged[2] = replace(records[2], path=str(tiny.truncate_video(path)))
    engine = LocalEngine()
    tables = [
        engine.extract_features(
            FeatureJob(
                config=config,
                manifest=build_manifest(kept, root="/"),
                views={"slow": VIEW, "fast": FAST_VIEW},
                weights={"clip": None, "again": None},
            )
        )
        for kept in (records, damaged)
    ]
    whole, rest = tables
    assert whole.video_ids == tuple(record.video_id for record in records)
    assert whole.failures == ()
    assert rest.video_ids == whole.video_ids[:2] + whole.video_ids[3:]
    assert [failure.video_id for failure in rest.failures] == [records[2].video_id]
    kept_rows = [row for row in range(len(records)) if row != 2]
    for name in ("clip", "again"):
        for view, num_views in (("slow", 1), ("fast", 6)):
            features = whole.features[name][view]
            assert features.joint.shape == (len(records), num_views, tiny.EMBEDDING)
            assert features.pooled.shape == (len(records), num_views, tiny.WIDTH)
            kept = features.select(kept_rows)
            torch.testing.assert_close(rest.features[name][view].joint, kept.joint)
            torch.testing.assert_close(rest.features[name][view].pooled, kept.pooled)
    assert (whole.joint("clip")[0] - whole.joint("clip")[4]).abs().max() > 1e-3
