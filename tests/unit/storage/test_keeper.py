"""Checkpoints that workers put into a store, set aside on the driver's machine to be evaluated."""

from pathlib import Path

import pytest
from kept_run import write_checkpoint_folder, write_run

from lssl_ray.errors import CheckpointError
from lssl_ray.storage import RunStore
from lssl_ray.storage.claims import claim
from lssl_ray.storage.keeper import SessionKeeper
from lssl_ray.training.checkpoint import find_damage
from lssl_ray.training.holding import CheckpointHolder, list_held, read_asked


@pytest.fixture
def run(store: RunStore, tmp_path: Path) -> Path:
    """A claimed run folder without checkpoints: they are in the store only."""
    folder = write_run(tmp_path / "runs" / "mine", rows=6)
    claim(store, folder)
    return folder


@pytest.fixture
def keeper(store: RunStore, run: Path) -> SessionKeeper:
    """Every second checkpoint is to be evaluated, and the last, at step 10."""
    return SessionKeeper(store, run, CheckpointHolder(run, every_steps=4, last_step=10))


def put_checkpoint(store: RunStore, tmp_path: Path, step: int) -> str:
    """As a worker on another machine does."""
    folder = write_checkpoint_folder(tmp_path / "worker" / f"step_{step:08d}", f"of {step}")
    for path in folder.iterdir():
        store.put(path, f"checkpoints/{folder.name}/{path.name}")
    return folder.name


def list_names(run: Path) -> list[str]:
    return [path.name for path in list_held(run)]


def test_keeper_sets_those_aside_that_are_due_and_outlives_the_store(
    store: RunStore, run: Path, keeper: SessionKeeper, tmp_path: Path
) -> None:
    for step in (2, 4, 6, 8, 10):
        keeper.take_checkpoint(put_checkpoint(store, tmp_path, step))
    assert list_names(run) == ["step_00000004", "step_00000008", "step_00000010"]
    assert read_asked(run) == {4, 8, 10}
    assert list((run / "checkpoints").glob("*")) == []
    store.delete("checkpoints")
    for held in list_held(run):
        assert find_damage(held) is None
        assert (held / "student.safetensors").read_text() == f"of {int(held.name[5:])}" * 9


def test_keeper_resumed_makes_up_for_what_was_missed_and_forgets_what_is_done_again(
    store: RunStore, run: Path, keeper: SessionKeeper, tmp_path: Path
) -> None:
    for step in (4, 8):
        keeper.take_checkpoint(put_checkpoint(store, tmp_path, step))
    keeper.begin_session(4)
    assert (list_names(run), read_asked(run)) == (["step_00000004"], {4})
    # Killed after the checkpoint of step 8 was put again, before it was set aside.
    keeper.begin_session(8)
    assert (list_names(run), read_asked(run)) == (["step_00000004", "step_00000008"], {4, 8})
    keeper.begin_session(0)
    assert (list_names(run), read_asked(run)) == ([], set())


def test_keeper_given_a_damaged_checkpoint_refuses_it(
    store: RunStore, run: Path, keeper: SessionKeeper, tmp_path: Path
) -> None:
    name = put_checkpoint(store, tmp_path, 4)
    damaged = tmp_path / "damaged"
    damaged.write_text("cut")
    store.put(damaged, f"checkpoints/{name}/teacher.safetensors")
    with pytest.raises(CheckpointError, match=r"teacher\.safetensors"):
        keeper.take_checkpoint(name)
    assert list_held(run) == []


def test_keeper_without_evaluations_puts_the_record_only(
    store: RunStore, run: Path, tmp_path: Path
) -> None:
    keeper = SessionKeeper(store, run, None)
    keeper.begin_session(0)
    keeper.put_record()
    keeper.take_checkpoint(put_checkpoint(store, tmp_path, 4))
    assert "metrics.jsonl" in store.list_files()
    assert list_held(run) == []
