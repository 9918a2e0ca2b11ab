"""Checkpoints fetched from a store: the newest whole one, and what is wrong with newer ones."""

import json
from pathlib import Path

import pytest
from kept_run import write_checkpoint_folder

from lssl_ray.storage import RunStore
from lssl_ray.storage.checkpoints import fetch_folder, fetch_latest_checkpoint, find_newest_step
from lssl_ray.storage.mirror import delete_old_checkpoints
from lssl_ray.training.checkpoint import find_damage

STEPS = ("step_00000002", "step_00000004", "step_00000006")


@pytest.fixture
def kept(store: RunStore, tmp_path: Path) -> RunStore:
    """A store with three checkpoints."""
    for name in STEPS:
        put_folder(store, write_checkpoint_folder(tmp_path / "made" / name, name))
    return store


def put_folder(store: RunStore, folder: Path) -> None:
    for path in folder.iterdir():
        store.put(path, f"checkpoints/{folder.name}/{path.name}")


def put_text(store: RunStore, name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text(text)
    store.put(path, name)


def test_fetch_latest_brings_every_file_of_the_newest(kept: RunStore, tmp_path: Path) -> None:
    found = fetch_latest_checkpoint(kept, tmp_path / "here")
    assert found == tmp_path / "here" / STEPS[2] and find_damage(found) is None
    made = tmp_path / "made" / STEPS[2]
    assert {path.name for path in found.iterdir()} == {path.name for path in made.iterdir()}
    assert [path.name for path in (tmp_path / "here").iterdir()] == [STEPS[2]]


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "no index", "cut index"])
def test_fetch_latest_passes_over_a_damaged_one_and_names_it(
    kept: RunStore, tmp_path: Path, damage: str
) -> None:
    newest = f"checkpoints/{STEPS[2]}"
    weights, index = f"{newest}/student.safetensors", f"{newest}/checkpoint.json"
    content = (tmp_path / "made" / STEPS[2] / "student.safetensors").read_text()
    if damage == "changed":
        put_text(kept, weights, content[:-1] + "?", tmp_path)
    elif damage == "cut":
        put_text(kept, weights, content[:-1], tmp_path)
    elif damage == "cut index":
        put_text(kept, index, '{"version": 2, "fil', tmp_path)
    else:
        kept.filesystem.delete_file(
            f"{kept.parent}/{kept.name}/{weights if damage == 'missing' else index}"
        )
    told: list[str] = []
    found = fetch_latest_checkpoint(kept, tmp_path / "here", on_damage=told.append)
    assert found is not None and found.name == STEPS[1]
    assert len(told) == 1 and STEPS[2] in told[0]
    assert [path.name for path in (tmp_path / "here").iterdir()] == [STEPS[1]]
    # Content is not read to find the step.
    assert find_newest_step(kept) == (6 if damage == "changed" else 4)


def test_fetch_latest_of_a_store_without_any_is_none(store: RunStore, tmp_path: Path) -> None:
    assert fetch_latest_checkpoint(store, tmp_path / "here") is None
    assert find_newest_step(store) is None


def test_fetch_folder_again_takes_what_changed(kept: RunStore, tmp_path: Path) -> None:
    target = tmp_path / "here"
    name = f"checkpoints/{STEPS[0]}"
    assert fetch_folder(kept, name, target) is None
    before = (target / "student.safetensors").stat().st_ino
    assert fetch_folder(kept, name, target) is None
    assert (target / "student.safetensors").stat().st_ino == before  # not fetched again
    put_folder(kept, write_checkpoint_folder(tmp_path / "again" / STEPS[0], "other weights"))
    assert fetch_folder(kept, name, target) is None
    assert (target / "student.safetensors").read_text() == "other weights" * 9


def test_fetch_folder_of_named_files_is_whole_for_these_and_for_no_more(
    kept: RunStore, tmp_path: Path
) -> None:
    target, wanted = tmp_path / "here", ("teacher.safetensors", "progress.json")
    assert fetch_folder(kept, f"checkpoints/{STEPS[0]}", target, files=wanted) is None
    assert {path.name for path in target.iterdir()} == {*wanted, "checkpoint.json"}
    assert find_damage(target, files=wanted) is None
    assert json.loads((target / "checkpoint.json").read_text())["files"].keys() == set(wanted)


def test_delete_old_checkpoints_keeps_the_newest(kept: RunStore) -> None:
    delete_old_checkpoints(kept, num_to_keep=2)
    assert kept.list_checkpoints() == list(STEPS[1:])
    delete_old_checkpoints(kept, num_to_keep=5)
    assert kept.list_checkpoints() == list(STEPS[1:])
