"""Checkpoints: all state comes back bit for bit, and nothing damaged is trusted."""

import json
import shutil
from pathlib import Path

import lss_parts
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lssl_ray.errors import CheckpointError
from lssl_ray.model.clip import ClipModel
from lssl_ray.training.checkpoint import (
    MODEL_FILES,
    checkpoint_name,
    find_damage,
    find_latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_progress,
    load_weights,
    write_checkpoint,
    write_rng_state,
)
from lssl_ray.training.optimizer import build_optimizer, set_rates
from lssl_ray.training.task import LssTask
from lssl_ray.types import Progress

PROGRESS = Progress(
    step=3,
    positions_done=24,
    clips_trained=22,
    clips_failed=2,
    steps_skipped=1,
    low_entropy_windows=2,
    train_seconds=12.5,
    data_wait_seconds=0.25,
)


def build_trained(clip: ClipModel, *, num_updates: int) -> tuple[LssTask, torch.optim.AdamW]:
    task = lss_parts.build_task(clip)
    optimizer = build_optimizer(task.student, betas=(0.9, 0.999))
    set_rates(optimizer, learning_rates={"pretrained": 1e-3, "temporal": 1e-2}, weight_decay=0.1)
    for update in range(num_updates):
        for index, parameter in enumerate(task.student.parameters()):
            parameter.grad = lss_parts.draw(*parameter.shape, seed=1000 * update + index)
        optimizer.step()
    return task, optimizer


def write(folder: Path, task: LssTask, optimizer: torch.optim.Optimizer) -> Path:
    folder.mkdir(parents=True)
    write_rng_state(folder, rank=0)
    write_checkpoint(
        folder,
        task=task,
        optimizer=optimizer,
        progress=PROGRESS,
        run_config="run: {name: test}\n",
    )
    return folder


def list_optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert value.dtype == actual[name].dtype and torch.equal(value, actual[name]), name


@pytest.fixture(scope="module")
def written(tiny_clip: ClipModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint; read only."""
    folder = tmp_path_factory.mktemp("written") / checkpoint_name(3)
    return write(folder, *build_trained(tiny_clip, num_updates=2))


def test_load_checkpoint_restores_everything_bit_for_bit(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    task, optimizer = build_trained(tiny_clip, num_updates=2)
    torch.manual_seed(123)
    folder = write(tmp_path / "step", task, optimizer)
    drawn = torch.rand(5)
    other, other_optimizer = build_trained(tiny_clip, num_updates=5)
    with torch.no_grad():
        next(other.teacher.parameters()).zero_()
    progress = load_checkpoint(folder, task=other, optimizer=other_optimizer, rank=0)
    assert progress == PROGRESS
    assert (progress.train_seconds, progress.data_wait_seconds) == (12.5, 0.25)
    assert torch.equal(torch.rand(5), drawn)
    assert_same(other.student.state_dict(), task.student.state_dict())
    assert_same(other.teacher.state_dict(), task.teacher.state_dict())
    assert_same(
        list_optimizer_state(other.student, other_optimizer),
        list_optimizer_state(task.student, optimizer),
    )
    assert (folder / "run_config.yaml").read_text() == "run: {name: test}\n"


def test_load_checkpoint_next_update_is_the_same_bit_for_bit(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    straight, _ = build_trained(tiny_clip, num_updates=3)
    folder = write(tmp_path / "step", *build_trained(tiny_clip, num_updates=2))
    task, optimizer = build_trained(tiny_clip, num_updates=0)
    load_checkpoint(folder, task=task, optimizer=optimizer, rank=0)
    for index, parameter in enumerate(task.student.parameters()):
        parameter.grad = lss_parts.draw(*parameter.shape, seed=2000 + index)
    optimizer.step()
    assert_same(task.student.state_dict(), straight.student.state_dict())


def test_load_checkpoint_restores_heads_and_memory_bit_for_bit(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    def build() -> tuple[LssTask, torch.optim.AdamW]:
        task = lss_parts.build_task(tiny_clip, prototypes=True)
        return task, build_optimizer(task.student, head=task.student_head, betas=(0.9, 0.999))

    task, optimizer = build()
    memory = {"center/prototypes": torch.rand(7), "prior_mean/prototypes": torch.rand(7).double()}
    task.memory = memory
    for _, (student, teacher) in task.averaged_pairs().items():
        for parameter in (*student.parameters(), *teacher.parameters()):
            parameter.data.add_(0.1)
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    folder = write(tmp_path / "step", task, optimizer)
    other, other_optimizer = build()
    load_checkpoint(folder, task=other, optimizer=other_optimizer, rank=0)
    assert_same({**other.memory}, memory)
    assert_same(other.state_dict(), task.state_dict())
    assert task.student_head is not None and other.student_head is not None
    state = list_optimizer_state(task.student_head, optimizer)
    assert any(name.startswith("prototypes/") for name in state)
    assert_same(list_optimizer_state(other.student_head, other_optimizer), state)
    # Evaluation reads the encoder's file alone, whatever else the run trained.
    plain = lss_parts.build_task(tiny_clip)
    load_weights(plain.teacher, folder / "teacher.safetensors")
    assert_same(plain.teacher.state_dict(), task.teacher.state_dict())


def test_load_checkpoint_worker_that_was_not_there_keeps_its_random_state(
    tiny_clip: ClipModel, written: Path
) -> None:
    task, optimizer = build_trained(tiny_clip, num_updates=0)
    before = torch.get_rng_state()
    load_checkpoint(written, task=task, optimizer=optimizer, rank=7)
    assert torch.equal(torch.get_rng_state(), before)


def test_find_damage_whole_checkpoint_has_none(written: Path) -> None:
    assert find_damage(written) is None


@pytest.mark.parametrize(
    "name",
    ["student.safetensors", "teacher.safetensors", "optimizer.safetensors", "memory.safetensors",
     "progress.json", "run_config.yaml", "checkpoint.json"],
)  # fmt: skip
@pytest.mark.parametrize("damage", ["cut", "missing", "flipped"])
def test_find_latest_checkpoint_falls_back_from_damaged_file(
    written: Path, tmp_path: Path, name: str, damage: str
) -> None:
    good = tmp_path / "checkpoints" / checkpoint_name(3)
    bad = tmp_path / "checkpoints" / checkpoint_name(12)
    shutil.copytree(written, good)
    shutil.copytree(written, bad)
    path = bad / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        position = content.index(b"sha256") + 12 if name == "checkpoint.json" else -1
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(bytes(changed))
    assert find_latest_checkpoint(tmp_path) == good
    told: list[str] = []
    assert find_latest_checkpoint(tmp_path, on_damage=told.append) == good
    assert len(told) == 1 and bad.name in told[0]


@pytest.mark.parametrize("name", [*MODEL_FILES, "optimizer.safetensors", "student.safetensors"])
def test_find_damage_for_a_model_compares_what_is_read_and_measures_the_rest(
    written: Path, tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "written"))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert (find_damage(folder, files=MODEL_FILES) is not None) == (name in MODEL_FILES)
    (folder / name).write_bytes(content[:-1])  # not written to its end
    assert name in (find_damage(folder, files=MODEL_FILES) or "")
    (folder / name).unlink()
    assert name in (find_damage(folder, files=MODEL_FILES) or "")


def test_find_latest_checkpoint_prefers_the_newest_whole_one(written: Path, tmp_path: Path) -> None:
    assert find_latest_checkpoint(tmp_path) is None
    for step in (2, 10, 9):
        shutil.copytree(written, tmp_path / "checkpoints" / checkpoint_name(step))
    assert find_latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / checkpoint_name(10)


@pytest.mark.parametrize("version", [1, 999])
def test_load_progress_other_version_is_refused(
    written: Path, tmp_path: Path, version: int
) -> None:
    folder = shutil.copytree(written, tmp_path / "step")
    index = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps({**index, "version": version}))
    with pytest.raises(CheckpointError, match=f"version {version}.*release"):
        load_progress(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"steps": 3}'])
def test_load_progress_unreadable_is_refused(written: Path, tmp_path: Path, text: str) -> None:
    folder = shutil.copytree(written, tmp_path / "step")
    (folder / "progress.json").write_text(text)
    with pytest.raises(CheckpointError, match="can't be read"):
        load_progress(folder)


def test_load_weights_other_architecture_is_refused(written: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit this architecture"):
        load_weights(nn.Linear(2, 2), written / "student.safetensors")


def test_load_weights_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    with pytest.raises(CheckpointError, match="can't be read"):
        load_weights(nn.Linear(2, 2), path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="can't be read"):
        load_weights(nn.Linear(2, 2), path)


def test_load_checkpoint_optimizer_state_of_other_model_is_refused(
    tiny_clip: ClipModel, written: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(written, tmp_path / "step")
    state = load_file(folder / "optimizer.safetensors")
    state["exp_avg/student.other"] = state["exp_avg/student.proj"].clone()
    save_file(state, folder / "optimizer.safetensors")
    task, optimizer = build_trained(tiny_clip, num_updates=0)
    with pytest.raises(CheckpointError, match="this model lacks"):
        load_checkpoint(folder, task=task, optimizer=optimizer, rank=0)


def test_local_context_interrupted_write_leaves_no_half(tmp_path: Path) -> None:
    context = lss_parts.build_context(tmp_path, lss_parts.Rows())
    context.save_checkpoint("step_00000001", lambda folder: (folder / "a").write_text("1"))

    def fail(folder: Path) -> None:
        (folder / "a").write_text("2")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        context.save_checkpoint("step_00000002", fail)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]
    with pytest.raises(OSError, match="disk full"):
        context.save_checkpoint("step_00000001", fail)
    assert (tmp_path / "checkpoints" / "step_00000001" / "a").read_text() == "1"


def test_list_checkpoints_ignores_what_a_killed_writer_left(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".writing-abc").mkdir(parents=True)
    assert list_checkpoints(tmp_path) == []
    assert find_latest_checkpoint(tmp_path) is None


def test_local_context_keeps_the_newest_and_replaces_equal_names(tmp_path: Path) -> None:
    context = lss_parts.build_context(tmp_path, lss_parts.Rows(), num_to_keep=2)
    for step, text in ((9, "a"), (10, "b"), (11, "c"), (11, "d")):
        context.save_checkpoint(
            checkpoint_name(step), lambda folder, text=text: (folder / "a").write_text(text)
        )
    kept = list_checkpoints(tmp_path)
    assert [path.name for path in kept] == ["step_00000010", "step_00000011"]
    assert (kept[-1] / "a").read_text() == "d"
