"""Pictures of a run: curves, what the model looks at and sees, accuracy before and after."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from lssl_ray import build
from lssl_ray.concepts.space import ConceptSpace
from lssl_ray.config import RunConfig
from lssl_ray.engine import load_encoders
from lssl_ray.evaluation.report import SplitResult
from lssl_ray.model.clip import ImageTower
from lssl_ray.training.augment import augment_views
from lssl_ray.types import FLIP, ClipBatch
from lssl_ray.video.manifest import Manifest
from lssl_ray.video.pipeline import ClipDecoder, pack_clips, unpack_batch

NUM_SHEET_CLIPS = 6
NUM_TOP_CONCEPTS = 3
NUM_SHEET_FRAMES = 4
_BEFORE, _AFTER = "#9aa5b1", "#1f77b4"

# Panel title to the metrics it shows.
CURVES = {
    "objectives": (
        "loss/distill_category",
        "loss/distill_description",
        "loss/align",
        "loss/prior_category",
        "loss/prior_description",
        "loss/distill_prototypes",
        "loss/prior_prototypes",
    ),
    "health": ("health/mean_prediction_entropy", "health/sample_entropy", "health/agreement"),
    "gradient norm": ("gradient_norm/pretrained", "gradient_norm/temporal", "gradient_norm/head"),
    "clips per second": ("data/clips_per_second",),
    "data path": ("data/wait_share", "data/decoder_busy_share", "data/batches_ready"),
    "learning rate": ("schedule/pretrained_rate", "schedule/temporal_rate"),
}


VALIDATION_PANEL, HELD_BACK_PANEL = "beside training", "label-free, each over its own range"
EVALUATION_PANELS = (VALIDATION_PANEL, HELD_BACK_PANEL)


def draw_curves(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Objectives, health, gradients, throughput and evaluations over the run's steps."""
    curves = {**CURVES, **_find_evaluation_curves(rows)}
    num_lines = -(-len(curves) // 3)
    with _drawing(path, width=12, height=3 * num_lines) as figure:
        panels = list(figure.subplots(num_lines, 3).flat)
        for spare in panels[len(curves) :]:
            spare.remove()
        for panel, (title, names) in zip(panels, curves.items(), strict=False):
            for name in names:
                # Evaluations are filed late, so their steps are put in order here.
                points = sorted((row["step"], row[name]) for row in rows if name in row)
                if points:
                    steps, values = zip(*points, strict=True)
                    if title == HELD_BACK_PANEL:
                        values = _scale_to_range(values)
                    # A line needs two points.
                    marker = "." if len(points) == 1 or title in EVALUATION_PANELS else None
                    label = name.partition("/")[2].replace("_", " ").replace("/", ", ")
                    panel.plot(steps, values, label=label, marker=marker)
            panel.set_title(title, fontsize=10)
            panel.set_xlabel("step", fontsize=8)
            panel.grid(alpha=0.3)
            if len(panel.lines) > 1:
                panel.legend(fontsize=7)


def _find_evaluation_curves(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Panels for checkpoints that were evaluated beside training, where some were."""
    names = {name for row in rows for name in row}
    splits = sorted(name for name in names if name.endswith(("/zero_shot", "/knn")))
    held_back = sorted(name for name in names if name.startswith("held_back/"))
    panels = {VALIDATION_PANEL: tuple(splits), HELD_BACK_PANEL: tuple(held_back)}
    return {title: found for title, found in panels.items() if found}


def _scale_to_range(values: Sequence[float]) -> tuple[float, ...]:
    low, high = min(values), max(values)
    return tuple((value - low) / ((high - low) or 1.0) for value in values)


def draw_zero_shot(split: str, result: SplitResult, path: Path) -> None:
    """Per-class accuracy before and after, worst change at the bottom."""
    gains = {
        label: (right / total, result.adapted.per_class[label][0] / total)
        for label, (right, total) in result.clip.per_class.items()
    }
    labels = sorted(gains, key=lambda label: gains[label][1] - gains[label][0])
    with _drawing(path, width=8, height=1.5 + 0.3 * len(labels)) as figure:
        panel = figure.subplots()
        y = np.arange(len(labels))
        panel.barh(y + 0.2, [100 * gains[k][0] for k in labels], 0.38, color=_BEFORE, label="CLIP")
        panel.barh(
            y - 0.2, [100 * gains[k][1] for k in labels], 0.38, color=_AFTER, label="adapted"
        )
        panel.set_yticks(y, labels, fontsize=8)
        panel.set_xlim(0, 100)
        panel.set_xlabel("zero-shot top-1, %")
        before, after = 100 * result.clip.top1, 100 * result.adapted.top1
        videos = f"{result.clip.num_videos} videos"
        panel.set_title(f"{split}: {before:.1f} % before, {after:.1f} % after ({videos})", size=10)
        panel.legend(loc="lower right", fontsize=8)
        panel.grid(axis="x", alpha=0.3)


def draw_contact_sheet(
    config: RunConfig,
    manifest: Manifest,
    clip: ImageTower,
    space: ConceptSpace,
    teacher: Path,
    path: Path,
) -> None:
    """The first clips of the run as the model gets them, with the teacher's top concepts."""
    batch = _load_first_clips(config, manifest)
    if not batch.num_clips:
        return
    num_global = config.views.global_.count
    device = torch.device("cpu")
    encoder = load_encoders(config, clip, {"teacher": teacher}, device=device)["teacher"]
    with torch.inference_mode():
        values = batch.augmentation[:, :num_global]
        pixels = augment_views(batch.global_views, values, mean=clip.mean, std=clip.std)
        scores = encoder(pixels[:, 0]) @ space.categories.T  # [B, n]
        softmax = torch.softmax(scores / _find_last_temperature(config, manifest), dim=-1)
    top = softmax.topk(min(NUM_TOP_CONCEPTS, len(space.labels)), dim=-1)
    with _drawing(path, width=12, height=1.75 * batch.num_clips) as figure:
        panels = figure.subplots(batch.num_clips, 2, squeeze=False, width_ratios=(3, 1))
        for row in range(batch.num_clips):
            left, right = panels[row]
            left.imshow(_lay_out_views(batch, row))
            left.set_title(batch.video_ids[row], fontsize=7, loc="left")
            left.axis("off")
            names = [space.labels[i] for i in top.indices[row].tolist()]
            right.barh(names[::-1], top.values[row].tolist()[::-1], color=_AFTER)
            right.set_xlim(0, 1)
            right.tick_params(labelsize=7)
        figure.suptitle(
            "Input views (first global, then local) and the teacher's top concepts", fontsize=10
        )


def _find_last_temperature(config: RunConfig, manifest: Manifest) -> float:
    num_videos = len(manifest)
    last_step = build.compute_run_steps(config, num_videos=num_videos) - 1
    return build.build_schedules(config, num_videos=num_videos).student_temperature(last_step)


@contextmanager
def _drawing(path: Path, *, width: float, height: float) -> Iterator[Figure]:
    """A figure of some inches that becomes a file."""
    # Names of videos and labels are texts, whatever dollar signs they hold.
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, dpi=110)


def _load_first_clips(config: RunConfig, manifest: Manifest) -> ClipBatch:
    recipe = build.build_recipe(config)
    visits = build.build_plan(config, num_videos=len(manifest)).compute_visits(0, NUM_SHEET_CLIPS)
    with ClipDecoder(
        manifest, recipe=recipe, settings=build.build_decode_settings(config), seed=config.run.seed
    ) as decoder:
        clips = [decoder.decode(visit) for visit in visits]
    columns = pack_clips(clips, recipe=recipe, num_rows=len(clips))
    return unpack_batch(columns, device=torch.device("cpu"))


def _lay_out_views(batch: ClipBatch, row: int) -> np.ndarray:
    """Frames of the first global and the first local view side by side, RGB in [0, 255]."""
    views = [(batch.global_views[row, 0], batch.augmentation[row, 0])]
    if batch.local_views is not None:
        num_global = batch.global_views.shape[1]
        views.append((batch.local_views[row, 0], batch.augmentation[row, num_global]))
    height = batch.global_views.shape[3]
    tiles = []
    for view, values in views:
        # Raw pixels and the mirror only: colours as the camera saw them are easier to judge.
        frames = view.flip(2) if values[FLIP] > 0 else view
        shown = np.linspace(0, len(frames) - 1, min(NUM_SHEET_FRAMES, len(frames))).round()
        for index in shown.astype(int):
            tile = np.full((height, frames.shape[2] + 2, 3), 255, dtype=np.uint8)
            tile[: frames.shape[1], : frames.shape[2]] = frames[index].numpy()
            tiles.append(tile)
        tiles.append(np.full((height, 6, 3), 255, dtype=np.uint8))
    return np.concatenate(tiles[:-1], axis=1)
