"""A step in parts is the undivided step; what objectives remember moves with real steps only."""

from pathlib import Path
from typing import Any

import lss_parts
import pytest
import torch
from torch import Tensor

from lssl_ray.model.clip import ClipModel
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.training.loop import run_loop
from lssl_ray.training.optimizer import build_optimizer
from lssl_ray.training.step import run_backward
from lssl_ray.training.task import LssTask
from lssl_ray.types import Progress

CLIPS, NUM_STEPS = 5, 3
REMEMBERING: dict[str, Any] = {"prior_running_mean": 0.5, "centering_momentum": 0.9}
VARIANTS: dict[str, dict[str, Any]] = {
    "remembering": {"full": True, **REMEMBERING},
    "prototypes": {"prototypes": True, **REMEMBERING},
}


def run(
    clip: ClipModel, folder: Path, *, micro_batches: int, **options: Any
) -> tuple[LssTask, list[dict[str, Any]]]:
    task = lss_parts.build_task(clip, encoder_type=lss_parts.DoubleEncoder, **options)
    rows = lss_parts.Rows()
    run_loop(
        task,
        build_optimizer(task.student, head=task.student_head, betas=(0.9, 0.999)),
        lss_parts.build_schedules(NUM_STEPS),
        [lss_parts.draw_batch(CLIPS, seed=step) for step in range(NUM_STEPS)],
        progress=Progress(),
        settings=lss_parts.build_settings(
            NUM_STEPS, clips_per_step=CLIPS, micro_batches=micro_batches
        ),
        context=lss_parts.build_context(folder, rows),
    )
    return task, rows.metrics


def list_state(task: LssTask) -> dict[str, Tensor]:
    return {**dict(task.named_parameters()), **task.memory}


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_micro_batches_weights_and_metrics_equal_the_undivided_step(
    tiny_clip: ClipModel, tmp_path: Path, variant: str
) -> None:
    before = list_state(
        lss_parts.build_task(tiny_clip, encoder_type=lss_parts.DoubleEncoder, **VARIANTS[variant])
    )
    whole, whole_rows = run(tiny_clip, tmp_path / "1", micro_batches=1, **VARIANTS[variant])
    expected = list_state(whole)
    moved = [name for name in before if (expected[name] - before[name]).abs().max() > 1e-4]
    assert len(moved) > len(before) * 0.8
    for micro_batches in (3, 9):  # unevenly, more than clips
        task, rows = run(
            tiny_clip, tmp_path / str(micro_batches), micro_batches=micro_batches,
            **VARIANTS[variant],
        )  # fmt: skip
        actual = list_state(task)
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                actual[name], value, rtol=0, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
            )
        for row, other in zip(rows, whole_rows, strict=True):
            figures = {k: v for k, v in other.items() if k.startswith(("loss/", "gradient_norm/"))}
            assert {name: row[name] for name in figures} == pytest.approx(figures, rel=1e-6)


def test_micro_batches_encode_no_more_clips_at_once_than_a_part_holds(
    tiny_clip: ClipModel,
) -> None:
    seen: list[tuple[int, bool]] = []

    class WatchedEncoder(VideoEncoder):
        def forward(self, pixels: Tensor) -> Tensor:
            if self.training:
                seen.append((len(pixels), torch.is_grad_enabled()))
            return super().forward(pixels)

    task = lss_parts.build_task(tiny_clip, encoder_type=WatchedEncoder).train()
    batch = lss_parts.draw_batch(6, seed=0, num_local=0)
    run_backward(
        task, batch, encode_student=task.encode_student, num_parts=3,
        autocast=torch.autocast("cpu", enabled=False),
        weights=lss_parts.ALL_WEIGHTS, temperatures=lss_parts.TEMPERATURES,
    )  # fmt: skip
    # Two clips of two views each: three parts without gradients, three with.
    assert seen == [(4, False)] * 3 + [(4, True)] * 3


def test_run_loop_remembers_the_means_of_real_steps_only(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    task = lss_parts.build_task(tiny_clip, **REMEMBERING)
    batches = [lss_parts.draw_batch(2, seed=step) for step in range(3)]
    batches[1] = lss_parts.fail_clips(batches[1], 2)
    seen = []

    def feed() -> Any:
        for batch in batches:
            seen.append(dict(task.memory))
            yield batch

    run_loop(
        task,
        build_optimizer(task.student, betas=(0.9, 0.999)),
        lss_parts.build_schedules(3),
        feed(),
        progress=Progress(),
        settings=lss_parts.build_settings(3, clips_per_step=2, max_bad_fraction=1.0),
        context=lss_parts.build_context(tmp_path, lss_parts.Rows()),
    )
    assert seen[0] == {}
    spaces = ("category", "description")
    names = {f"{kind}/{space}" for kind in ("center", "prior_mean") for space in spaces}
    assert seen[1].keys() == names
    assert all(torch.equal(seen[2][name], seen[1][name]) for name in names)
    assert not any(torch.equal(task.memory[name], seen[1][name]) for name in names)
