"""The best checkpoint: the earlier of equals, whole, and out of the reach of deletions."""

import json
import shutil
from pathlib import Path

import pytest

from lssl_ray.errors import CheckpointError
from lssl_ray.validation.best import Best, find_best, keep_best

METRIC = "validation/val/zero_shot"


def write_checkpoint(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / f"step_{step:08d}"
    folder.mkdir(parents=True)
    (folder / "teacher.safetensors").write_text(f"weights {step}")
    return folder


def keep(run: Path, step: int, value: float, *, metric: str = METRIC) -> Best:
    return keep_best(run, write_checkpoint(run, step), Best(step, metric, value))


def test_best_is_replaced_by_a_better_one_only(tmp_path: Path) -> None:
    kept = [keep(tmp_path, step, value).step for step, value in ((1, 0.5), (2, 0.4), (3, 0.6))]
    assert kept == [1, 1, 3]
    assert (tmp_path / "best" / "teacher.safetensors").read_text() == "weights 3"
    assert json.loads((tmp_path / "best" / "best.json").read_text()) == {
        "step": 3,
        "metric": METRIC,
        "value": 0.6,
    }


def test_best_of_equals_is_the_earlier(tmp_path: Path) -> None:
    assert [keep(tmp_path, step, 0.5).step for step in (1, 2)] == [1, 1]


def test_best_survives_the_deletion_of_its_checkpoint(tmp_path: Path) -> None:
    keep(tmp_path, 1, 0.5)
    shutil.rmtree(tmp_path / "checkpoints")
    assert (tmp_path / "best" / "teacher.safetensors").read_text() == "weights 1"
    assert find_best(tmp_path) == Best(1, METRIC, 0.5)


def test_best_leaves_the_checkpoint_as_it_is(tmp_path: Path) -> None:
    keep(tmp_path, 1, 0.5)
    files = [path.name for path in (tmp_path / "checkpoints" / "step_00000001").iterdir()]
    assert files == ["teacher.safetensors"]


def test_best_by_another_metric_is_chosen_anew(tmp_path: Path) -> None:
    keep(tmp_path, 1, 900.0, metric="held_back/effective_rank")
    assert keep(tmp_path, 2, 0.5).step == 2


def test_best_after_a_kill_while_it_was_replaced_is_the_new_one(tmp_path: Path) -> None:
    keep(tmp_path, 1, 0.5)
    (tmp_path / "best").rename(tmp_path / ".best-old")
    (tmp_path / ".best-new").mkdir()
    (tmp_path / ".best-new" / "half").touch()
    assert keep(tmp_path, 2, 0.6).step == 2
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == [
        "best.json",
        "teacher.safetensors",
    ]
    assert not (tmp_path / ".best-old").exists() and not (tmp_path / ".best-new").exists()


def test_best_is_none_at_first_and_refused_when_damaged(tmp_path: Path) -> None:
    assert find_best(tmp_path) is None
    keep(tmp_path, 1, 0.5)
    (tmp_path / "best" / "best.json").write_text('{"step": 1')
    with pytest.raises(CheckpointError, match=r"best\.json"):
        find_best(tmp_path)
