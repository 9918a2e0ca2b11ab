"""Pictures: files that open and show what they should, not what they look like."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image
from safetensors.torch import save_file

from lssl_ray import build
from lssl_ray.concepts.vocabulary import load_vocabulary
from lssl_ray.config import RunConfig
from lssl_ray.evaluation.report import SplitResult
from lssl_ray.evaluation.zero_shot import ZeroShotResult
from lssl_ray.model.clip import ClipModel
from lssl_ray.pictures import CURVES, draw_contact_sheet, draw_curves, draw_zero_shot
from lssl_ray.video.index import index_videos
from lssl_ray.video.manifest import Manifest, load_manifest

BACKGROUND = 255


def read_png(path: Path) -> np.ndarray:
    """Pixels uint8 [height, width, 3] of a file that must be a whole PNG."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def measure_ink(path: Path) -> float:
    """Share of pixels that aren't background."""
    return float((read_png(path) != BACKGROUND).any(axis=-1).mean())


def build_rows(count: int) -> list[dict[str, Any]]:
    names = [name for group in CURVES.values() for name in group]
    return [
        {"step": step, **{name: float(step + i) for i, name in enumerate(names)}}
        for step in range(1, count + 1)
    ]


def build_result(right: dict[str, tuple[int, int, int]]) -> SplitResult:
    """Label to (right before, right after, videos)."""
    total = sum(videos for _, _, videos in right.values())
    before, after = (
        ZeroShotResult(
            labels=tuple(right),
            truth=(0,) * total,
            ranking=((0,),) * total,
            top1=sum(row[side] for row in right.values()) / total,
            top5=None,
            per_class={label: (row[side], row[2]) for label, row in right.items()},
        )
        for side in (0, 1)
    )
    return SplitResult(clip=before, adapted=after, num_excluded=0)


def test_curves_hold_more_ink_than_empty_panels(tmp_path: Path) -> None:
    draw_curves([], tmp_path / "none.png")
    draw_curves(build_rows(1), tmp_path / "one.png")
    draw_curves(build_rows(20), tmp_path / "many.png")
    inks = [measure_ink(tmp_path / f"{name}.png") for name in ("none", "one", "many")]
    assert 0.005 < inks[0] < inks[1] < inks[2]


def test_curves_of_rows_without_some_metrics_are_drawn(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"step": 1, "data/clips_per_second": 0.0, "data/wait_share": 1.0},
        {"step": 2, "data/clips_per_second": 3.0, "loss/distill_category": float("nan")},
    ]
    draw_curves(rows, tmp_path / "curves.png")
    draw_curves([], tmp_path / "none.png")
    assert measure_ink(tmp_path / "curves.png") > measure_ink(tmp_path / "none.png")


def test_zero_shot_bars_follow_the_figures(tmp_path: Path) -> None:
    blue = np.array([0x1F, 0x77, 0xB4])

    def count_blue(adapted_right: int) -> int:
        path = tmp_path / "bars.png"
        draw_zero_shot(
            "test", build_result({"run": (1, adapted_right, 8), "jump": (1, 0, 8)}), path
        )
        return int((read_png(path) == blue).all(axis=-1).sum())

    few, many = count_blue(2), count_blue(8)
    assert many > 2 * few > 0


def test_zero_shot_labels_with_dollar_signs_are_texts(tmp_path: Path) -> None:
    result = build_result({"paying $5 or $%": (1, 1, 2), "_{": (0, 1, 2), "$\\frac$": (1, 2, 2)})
    draw_zero_shot("test", result, tmp_path / "bars.png")
    assert measure_ink(tmp_path / "bars.png") > 0.01


@pytest.fixture
def draw_sheet(
    build_config: Callable[..., RunConfig], tiny_clip: ClipModel, tmp_path: Path
) -> Callable[..., Path]:
    """Draws the sheet of a run with an untrained teacher; returns its path."""

    def draw(manifest: Manifest, *overrides: str) -> Path:
        config = build_config(*overrides)
        vocabulary = load_vocabulary(Path(config.concepts.labels))
        space = build.build_label_space(config, tiny_clip, vocabulary)
        save_file(
            build.build_encoder(config, tiny_clip).state_dict(), tmp_path / "teacher.safetensors"
        )
        path = tmp_path / "sheet.png"
        draw_contact_sheet(
            config, manifest, tiny_clip, space, tmp_path / "teacher.safetensors", path
        )
        return path

    return draw


def test_contact_sheet_shows_pixels_of_the_videos(
    draw_sheet: Callable[..., Path], videos: tiny.VideoSet
) -> None:
    path = draw_sheet(load_manifest(str(videos.manifest)))
    pixels = read_png(path)
    assert pixels.shape[0] > 600  # six clips
    # The videos' backdrops and squares are coloured; apart from the bars all else is grey.
    coloured = np.ptp(pixels[:, : pixels.shape[1] * 2 // 3].astype(int), axis=-1) > 12
    assert coloured.mean() > 0.05


def test_contact_sheet_of_fewer_clips_without_local_views_is_shorter(
    draw_sheet: Callable[..., Path], videos: tiny.VideoSet
) -> None:
    manifest = load_manifest(str(videos.manifest))
    path = draw_sheet(
        manifest, "views.local.count=0", "optim.max_steps=1", "optim.clips_per_step=2"
    )
    assert 200 < read_png(path).shape[0] < 500
    assert measure_ink(path) > 0.05


def test_contact_sheet_leaves_out_clips_that_no_longer_decode(
    draw_sheet: Callable[..., Path], tmp_path: Path
) -> None:
    good = tiny.write_video(tmp_path / "v" / "$good$%.mp4", tiny.paint_frames("moving left"))
    bad = tiny.write_video(tmp_path / "v" / "bad.mp4", tiny.paint_frames("moving right"))
    manifest, _ = index_videos([str(tmp_path / "v")], deadline_seconds=60.0)
    tiny.truncate_video(bad)
    height = read_png(draw_sheet(manifest, "optim.epochs=1")).shape[0]
    (tmp_path / "sheet.png").unlink()
    assert 100 < height < 300
    tiny.truncate_video(good)
    assert not draw_sheet(manifest, "optim.epochs=1").exists()
