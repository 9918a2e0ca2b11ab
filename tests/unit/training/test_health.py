"""Collapse: counted over windows in a row, and ended exactly when the rule says so."""

import logging
from dataclasses import replace
from pathlib import Path

import lss_parts
import pytest
import torch
import torch.nn.functional as F

from lssl_ray.errors import TrainingError
from lssl_ray.model.clip import ClipModel
from lssl_ray.training.checkpoint import find_latest_checkpoint, load_checkpoint
from lssl_ray.training.health import COLLAPSED, ENTROPY, CollapseRule, judge_window
from lssl_ray.training.loop import run_loop
from lssl_ray.training.optimizer import build_optimizer
from lssl_ray.training.schedules import constant
from lssl_ray.types import Progress

STOP = CollapseRule(action="stop", entropy_threshold=0.2, windows=3)
WARN = CollapseRule(action="warn", entropy_threshold=0.2, windows=3)
OFF = CollapseRule(action="off", entropy_threshold=0.2, windows=3)


def run(
    clip: ClipModel, folder: Path, rows: lss_parts.Rows, *, rule: CollapseRule, stop: int = 6
) -> Progress:
    """A run, gone on from its last checkpoint, in which all clips are given one concept."""
    task = lss_parts.build_task(clip)
    # The first concept is what every clip is, the others are its opposite; nothing is learned.
    with torch.no_grad():
        views = task.prepare_views(lss_parts.draw_batch(3, seed=0))
        middle = F.normalize(task.encode_student(views).features.mean(dim=(0, 1)), dim=0)
    task.categories[0], task.categories[1:] = middle, -middle
    schedules = replace(
        lss_parts.build_schedules(6), pretrained_rate=constant(0.0), temporal_rate=constant(0.0)
    )
    optimizer = build_optimizer(task.student, betas=(0.9, 0.999))
    progress = Progress()
    checkpoint = find_latest_checkpoint(folder)
    if checkpoint is not None:
        progress = load_checkpoint(checkpoint, task=task, optimizer=optimizer, rank=0)
    batches = [lss_parts.draw_batch(3, seed=step) for step in range(progress.step, 6)]
    return run_loop(
        task,
        optimizer,
        schedules,
        batches,
        progress=progress,
        settings=lss_parts.build_settings(6, clips_per_step=3, collapse=rule, stop_at_step=stop),
        context=lss_parts.build_context(folder, rows),
    )


def test_collapse_stops_the_run_after_exactly_so_many_windows(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    rows = lss_parts.Rows()
    with pytest.raises(TrainingError, match=r"collapsed at step 3.*objective\.weight_prior"):
        run(tiny_clip, tmp_path, rows, rule=STOP)
    assert [row[COLLAPSED] for row in rows.metrics] == [0.0, 0.0, 1.0]
    assert all(row[ENTROPY] < 0.2 for row in rows.metrics)


@pytest.mark.parametrize("stop", [1, 2])
def test_collapse_count_survives_resume(tiny_clip: ClipModel, tmp_path: Path, stop: int) -> None:
    rows = lss_parts.Rows()
    assert run(tiny_clip, tmp_path, rows, rule=STOP, stop=stop).low_entropy_windows == stop
    with pytest.raises(TrainingError, match="collapsed at step 3"):
        run(tiny_clip, tmp_path, rows, rule=STOP)
    assert [row["step"] for row in rows.metrics] == [1, 2, 3]


def test_collapse_warns_once_and_goes_on(
    tiny_clip: ClipModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = lss_parts.Rows()
    with caplog.at_level(logging.WARNING, logger="lssl_ray.training.health"):
        assert run(tiny_clip, tmp_path, rows, rule=WARN).step == 6
    assert len(caplog.records) == 1
    assert [row[COLLAPSED] for row in rows.metrics] == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]


def test_collapse_off_is_not_looked_for(tiny_clip: ClipModel, tmp_path: Path) -> None:
    rows = lss_parts.Rows()
    assert run(tiny_clip, tmp_path, rows, rule=OFF).low_entropy_windows == 0
    assert all(COLLAPSED not in row for row in rows.metrics)


@pytest.mark.parametrize(
    ("entropies", "counts"),
    [
        ([0.1, 0.1, 0.5, 0.1, 0.1, 0.1], [1, 2, 0, 1, 2, 3]),
        ([0.2, 0.19, 0.2], [0, 1, 0]),
        ([0.1, None, 0.1, 0.1], [1, 1, 2, 3]),  # a window without a step says nothing
    ],
)
def test_judge_window_counts_low_windows_in_a_row(
    entropies: list[float | None], counts: list[int]
) -> None:
    low, found = 0, []
    for entropy in entropies:
        record = {} if entropy is None else {ENTROPY: entropy}
        low, health = judge_window(record, low_windows=low, rule=STOP)
        assert health == ({} if entropy is None else {COLLAPSED: float(low >= 3)})
        found.append(low)
    assert found == counts
