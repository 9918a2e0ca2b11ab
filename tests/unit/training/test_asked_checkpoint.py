"""Checkpoints that a worker is asked for: once for each time, off the rhythm, at one step for all.

That a run stopped off its rhythm goes on bit for bit is `test_loop.py`'s.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import lss_parts
import pytest
import torch
from torch import Tensor

from lssl_ray.model.clip import ClipModel
from lssl_ray.training.checkpoint import list_checkpoints, load_progress
from lssl_ray.training.holding import CheckpointHolder, list_held, read_step
from lssl_ray.training.loop import run_loop
from lssl_ray.training.optimizer import build_optimizer
from lssl_ray.training.workers import sum_counts
from lssl_ray.types import ClipBatch, Progress

CLIPS, NUM_STEPS = 2, 9


class AskedContext(lss_parts.LocalContext):
    """Asked as often as a test says; with others, it is one of three workers.

    `others` is what the other two have in all: clips, failed ones, times asked.
    """

    num_asked = 0
    others: tuple[float, float, float] | None = None

    def count_checkpoints_asked(self) -> int:
        return self.num_asked

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        return values if self.others is None else values + torch.tensor(self.others).to(values)


def build_context(
    folder: Path, rows: lss_parts.Rows, holder: CheckpointHolder | None = None
) -> AskedContext:
    return AskedContext(
        folder,
        device=torch.device("cpu"),
        append=rows.append,
        num_to_keep=2,
        on_checkpoint=None if holder is None else holder.hold,
    )


def test_asked_checkpoints_are_saved_once_each_and_shown_in_a_row_that_ends_there(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    task = lss_parts.build_task(tiny_clip)
    rows = lss_parts.Rows()
    holder = CheckpointHolder(run_folder=tmp_path, every_steps=4, last_step=NUM_STEPS)
    context = build_context(tmp_path, rows, holder)
    saved: list[list[int]] = []

    def feed() -> Iterable[ClipBatch]:
        for step in range(1, NUM_STEPS + 1):
            context.num_asked = {3: 1, 4: 1}.get(step, 2 if step >= 5 else 0)
            yield lss_parts.draw_batch(CLIPS, seed=step, first_position=CLIPS * (step - 1))
            saved.append([load_progress(folder).step for folder in list_checkpoints(tmp_path)])

    run_loop(
        task,
        build_optimizer(task.student, betas=(0.9, 0.999)),
        lss_parts.build_schedules(NUM_STEPS),
        feed(),
        progress=Progress(),
        settings=replace(
            lss_parts.build_settings(NUM_STEPS, clips_per_step=CLIPS, log_every=4),
            checkpoint_every=4,
        ),
        context=context,
    )
    # After each step, two are kept: asked at 3 and 5, due at 4, 8 and the end.
    assert saved == [[], [], [3], [3, 4], [4, 5], [4, 5], [4, 5], [5, 8]]
    assert [row["step"] for row in rows.metrics] == [3, 4, 5, 8, 9]
    assert [row["step"] for row in rows.metrics if "checkpoint/asked" in row] == [3, 5]
    assert {row["cluster/num_workers"] for row in rows.metrics} == {1}
    # Evaluation takes what is due and nothing else.
    assert [row["data/clips_trained"] for row in rows.metrics] == [6, 8, 10, 16, 18]
    assert [read_step(held) for held in list_held(tmp_path)] == [4, 8, 9]


def test_holder_resumes_at_an_asked_checkpoint_without_holding_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step_00000005").mkdir(parents=True)
    CheckpointHolder(run_folder=tmp_path, every_steps=4, last_step=9).resume(5)
    assert list_held(tmp_path) == []


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    # What two other workers were asked, in all: it counts when it has reached all three.
    [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 2, 0), (1, 2, 1), (2, 2, 1), (2, 4, 2)],
)
def test_asking_counts_when_all_workers_have_heard_of_it(
    tmp_path: Path, own: int, others: int, expected: int
) -> None:
    context = build_context(tmp_path, lss_parts.Rows())
    context.world_size = 3
    context.num_asked, context.others = own, (5.0, 1.0, float(others))
    counts = sum_counts(lss_parts.draw_batch(1, seed=0), context)
    assert counts.checkpoints_asked == expected
    assert (counts.clips, counts.failed, counts.local_share) == (6, 1, 0.5)
