"""The loop on batches made here: exact resume, and every way a step or a run may end early."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lss_parts
import pytest
import torch
from torch import Tensor

from lssl_ray.errors import DataError, TrainingError
from lssl_ray.model.clip import ClipModel
from lssl_ray.training.checkpoint import (
    find_latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_progress,
)
from lssl_ray.training.loop import run_loop
from lssl_ray.training.optimizer import build_optimizer
from lssl_ray.training.task import LssTask
from lssl_ray.types import ClipBatch, Progress

CLIPS = 3  # per step


def draw_batches(num_steps: int) -> list[ClipBatch]:
    return [
        lss_parts.draw_batch(CLIPS, seed=step, first_position=CLIPS * step)
        for step in range(num_steps)
    ]


def build_sgd(task: LssTask) -> torch.optim.SGD:
    group = {"params": list(task.student.parameters()), "name": "pretrained", "decays": False}
    return torch.optim.SGD([group], lr=0.0)


def run(
    task: LssTask,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[ClipBatch],
    folder: Path,
    *,
    num_steps: int,
    progress: Progress | None = None,
    rows: lss_parts.Rows | None = None,
    **changes: Any,
) -> Progress:
    return run_loop(
        task,
        optimizer,
        lss_parts.build_schedules(num_steps),
        batches,
        progress=progress or Progress(),
        settings=lss_parts.build_settings(num_steps, clips_per_step=CLIPS, **changes),
        context=lss_parts.build_context(folder, rows or lss_parts.Rows()),
    )


def copy_state(task: LssTask, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = {f"memory/{name}": value for name, value in task.memory.items()}
    for suffix, pair in task.averaged_pairs().items():
        for role, module in zip(("student", "teacher"), pair, strict=True):
            for name, value in module.state_dict().items():
                state[f"{role}{suffix}/{name}"] = value
        for name, parameter in pair[0].named_parameters():
            for key, value in optimizer.state[parameter].items():
                state[f"{key}{suffix}/{name}"] = value
    return {name: value.detach().clone() for name, value in state.items()}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(actual[name], expected[name])]
    assert different == []


@pytest.fixture
def parts(tiny_clip: ClipModel) -> tuple[LssTask, torch.optim.AdamW]:
    task = lss_parts.build_task(tiny_clip)
    return task, build_optimizer(task.student, betas=(0.9, 0.999))


@pytest.mark.parametrize(
    "options",
    [{}, {"prototypes": True, "prior_running_mean": 0.5, "centering_momentum": 0.9}],
    ids=["plain", "everything"],
)
def test_run_loop_stop_and_resume_equals_straight_run_bit_for_bit(
    tiny_clip: ClipModel, tmp_path: Path, options: dict[str, Any]
) -> None:
    batches = draw_batches(6)
    straight_rows, resumed_rows = lss_parts.Rows(), lss_parts.Rows()

    def build() -> tuple[LssTask, torch.optim.AdamW]:
        task = lss_parts.build_task(tiny_clip, **options)
        return task, build_optimizer(task.student, head=task.student_head, betas=(0.9, 0.999))

    task, optimizer = build()
    before = copy_state(task, optimizer)
    straight = run(task, optimizer, batches, tmp_path / "a", num_steps=6, rows=straight_rows)
    expected = copy_state(task, optimizer)
    assert expected.keys() - before.keys() > {f"memory/{name}" for name in task.memory}
    assert not torch.equal(before["student/proj"], expected["student/proj"])

    for stop in (2, 3, 6):  # two interruptions
        task, optimizer = build()
        progress = Progress()
        checkpoint = find_latest_checkpoint(tmp_path / "b")
        if checkpoint is not None:
            progress = load_checkpoint(checkpoint, task=task, optimizer=optimizer, rank=0)
        progress = run(
            task, optimizer, batches[progress.step :], tmp_path / "b",
            num_steps=6, progress=progress, rows=resumed_rows, stop_at_step=stop,
        )  # fmt: skip
    assert progress == straight
    assert_same(copy_state(task, optimizer), expected)
    clocks = ("time/", "data/clips_per_second", "data/wait_share", "data/decode", "data/batches")
    for a, b in zip(straight_rows.metrics, resumed_rows.metrics, strict=True):
        assert {k: v for k, v in a.items() if not k.startswith(clocks)} == {
            k: v for k, v in b.items() if not k.startswith(clocks)
        }


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_run_loop_non_finite_loss_stops_before_the_update(
    tiny_clip: ClipModel, tmp_path: Path, poison: float
) -> None:
    batches = draw_batches(3)
    bad = replace(batches[2], augmentation=torch.full_like(batches[2].augmentation, math.nan))
    if math.isinf(poison):
        bad = batches[2]
    states = []
    for third in (None, bad):
        task = lss_parts.build_task(tiny_clip)
        optimizer = build_optimizer(task.student, betas=(0.9, 0.999))
        if third is None:
            run(task, optimizer, batches, tmp_path / "good", num_steps=3, stop_at_step=2)
        else:

            def feed(task: LssTask = task) -> Iterable[ClipBatch]:
                yield from batches[:2]
                if math.isinf(poison):
                    task.categories.fill_(poison)
                yield bad

            with pytest.raises(TrainingError, match=r"step 3 on rank\(s\) \[0\]"):
                run(task, optimizer, feed(), tmp_path / "bad", num_steps=3)
        states.append(copy_state(task, optimizer))
    assert_same(states[1], states[0])
    assert list_checkpoints(tmp_path / "bad") == []


def test_run_loop_clips_the_gradient_and_moves_the_teacher_after_the_student(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    task = lss_parts.build_task(tiny_clip)
    optimizer = build_sgd(task)
    before = copy_state(task, optimizer)
    rows = lss_parts.Rows()
    run(
        task, optimizer, draw_batches(1), tmp_path,
        num_steps=4, stop_at_step=1, gradient_clip=0.01, rows=rows,
    )  # fmt: skip
    after = copy_state(task, optimizer)
    moved = [after[name] - before[name] for name in before if name.startswith("student/")]
    length = torch.linalg.vector_norm(torch.cat([value.flatten() for value in moved]))
    rate = lss_parts.build_schedules(4).pretrained_rate(0)
    assert rows.metrics[0]["gradient_norm/total"] > 0.1
    # Subtracting weights of size 1 leaves few digits of a step this small.
    assert length.item() == pytest.approx(rate * 0.01, rel=0.05)
    momentum = lss_parts.build_schedules(4).momentum(0)
    for name in ("proj", "conv1.weight", "temporal_embedding"):
        expected = momentum * before[f"teacher/{name}"] + (1 - momentum) * after[f"student/{name}"]
        torch.testing.assert_close(after[f"teacher/{name}"], expected, rtol=1e-5, atol=1e-7)


def test_run_loop_step_without_usable_clip_is_skipped_and_counted(
    parts: tuple[LssTask, torch.optim.AdamW], tmp_path: Path
) -> None:
    task, optimizer = parts
    batches = draw_batches(3)
    batches[1] = lss_parts.fail_clips(batches[1], CLIPS)
    rows = lss_parts.Rows()
    states: list[dict[str, Tensor]] = []

    def feed() -> Iterable[ClipBatch]:
        for batch in batches:
            states.append(copy_state(task, optimizer))
            yield batch

    progress = run(task, optimizer, feed(), tmp_path, num_steps=3, rows=rows, max_bad_fraction=0.5)
    assert_same(states[2], states[1])
    assert progress == Progress(
        step=3, positions_done=9, clips_trained=6, clips_failed=3, steps_skipped=1
    )
    assert [(row["video_id"], row["step"]) for row in rows.quarantine] == [
        ("video3", 2), ("video4", 2), ("video5", 2),
    ]  # fmt: skip
    assert all(row["reason"] == "decode_failed" for row in rows.quarantine)
    assert "loss/total" not in rows.metrics[1] and rows.metrics[1]["data/steps_skipped"] == 1
    assert math.isfinite(rows.metrics[2]["loss/total"])


def test_run_loop_partly_failed_batch_trains_on_the_rest(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    batch = draw_batches(1)[0]
    states = []
    for given in (lss_parts.fail_clips(batch, 1), lss_parts.take_clips(batch, 0, 2)):
        task = lss_parts.build_task(tiny_clip)
        optimizer = build_optimizer(task.student, betas=(0.9, 0.999))
        run(
            task, optimizer, [given], tmp_path / str(len(states)),
            num_steps=4, stop_at_step=1, max_bad_fraction=1.0,
        )  # fmt: skip
        states.append(copy_state(task, optimizer))
    assert_same(states[0], states[1])


@pytest.mark.parametrize(
    ("failed_by_step", "num_steps", "seen", "failed"),
    [([1, 0, 0], 3, 9, 1), ([0] * 14 + [3, 3, 0] + [0] * 3, 20, 51, 6)],
)
def test_run_loop_too_many_bad_clips_end_the_run(
    parts: tuple[LssTask, torch.optim.AdamW],
    tmp_path: Path,
    failed_by_step: Sequence[int],
    num_steps: int,
    seen: int,
    failed: int,
) -> None:
    # A short run is judged at its end, a long one once there are 50 clips to judge by.
    batches = [
        lss_parts.fail_clips(batch, count)
        for batch, count in zip(draw_batches(num_steps), failed_by_step, strict=True)
    ]
    with pytest.raises(DataError, match=rf"{failed} of {seen} clips .* data\.max_bad_fraction=0.1"):
        run(*parts, batches, tmp_path, num_steps=num_steps)


def test_run_loop_bad_clips_within_budget_let_the_run_finish(
    parts: tuple[LssTask, torch.optim.AdamW], tmp_path: Path
) -> None:
    batches = draw_batches(4)
    batches[0] = lss_parts.fail_clips(batches[0], 1)
    progress = run(*parts, batches, tmp_path, num_steps=4, max_bad_fraction=1 / 12)
    assert (progress.step, progress.clips_failed) == (4, 1)


def test_run_loop_last_short_batch_counts_real_clips(
    parts: tuple[LssTask, torch.optim.AdamW], tmp_path: Path
) -> None:
    batches = draw_batches(3)
    batches[2] = lss_parts.take_clips(batches[2], 0, 1)
    progress = run(*parts, batches, tmp_path, num_steps=3, num_positions=7)
    assert progress == Progress(step=3, positions_done=7, clips_trained=7)


def test_run_loop_checkpoints_by_cadence_and_at_the_end(
    parts: tuple[LssTask, torch.optim.AdamW], tmp_path: Path
) -> None:
    run(*parts, draw_batches(5), tmp_path, num_steps=5, checkpoint_every=2)
    folders = list_checkpoints(tmp_path)
    assert [folder.name for folder in folders] == [f"step_0000000{step}" for step in (2, 4, 5)]
    assert [load_progress(folder).step for folder in folders] == [2, 4, 5]
    assert load_progress(folders[0]).positions_done == 2 * CLIPS


def test_run_loop_metrics_window_averages_over_clips(tiny_clip: ClipModel, tmp_path: Path) -> None:
    batches = draw_batches(2)
    batches[1] = lss_parts.take_clips(batches[1], 0, 1)
    records = []
    for log_every in (1, 2):
        task = lss_parts.build_task(tiny_clip)
        optimizer = build_optimizer(task.student, betas=(0.9, 0.999))
        rows = lss_parts.Rows()
        run(
            task, optimizer, batches, tmp_path / str(log_every),
            num_steps=2, log_every=log_every, rows=rows,
        )  # fmt: skip
        records.append(rows.metrics)
    (first, second), (both,) = records
    output = lss_parts.compute(lss_parts.build_task(tiny_clip), batches[0])
    for name, value in output.terms.items():
        assert first[f"loss/{name}"] == pytest.approx(value.item(), rel=1e-5), name
    names = [name for name in both if name.startswith(("loss/", "health/", "gradient_norm/"))]
    assert {"loss/total", "loss/align", "health/agreement", "gradient_norm/temporal"} <= {*names}
    for name in names:
        assert both[name] == pytest.approx((3 * first[name] + second[name]) / 4), name
    assert both["schedule/pretrained_rate"] == second["schedule/pretrained_rate"]


def test_run_loop_data_that_ends_early_is_reported(
    parts: tuple[LssTask, torch.optim.AdamW], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="ended at step 2 of 3"):
        run(*parts, draw_batches(2), tmp_path, num_steps=3)
