"""What of a run folder goes into its store, who may put it there, and what a failure leaves."""

import json
from pathlib import Path

import pytest
from kept_run import count_rows, write_checkpoint_folder, write_rows, write_run

from lssl_ray.errors import CheckpointError
from lssl_ray.storage import RunStore
from lssl_ray.storage.claims import claim, require_claim, require_free
from lssl_ray.storage.mirror import RunMirror, keep_checkpoints, mirroring

RECORD = {"run_config.yaml", "metrics.jsonl", "artifacts/concept_space.safetensors"}


@pytest.fixture
def run(store: RunStore, tmp_path: Path) -> Path:
    """A claimed run folder."""
    folder = write_run(tmp_path / "runs" / "mine", rows=3)
    claim(store, folder)
    return folder


def write_best(run: Path, step: int) -> None:
    folder = run / "best"
    for path in folder.glob("*"):
        path.unlink()
    if folder.exists():
        folder.rmdir()
    write_checkpoint_folder(folder, f"best of {step}")
    (folder / "best.json").write_text(json.dumps({"step": step, "metric": "m", "value": 1.0}))


def read(store: RunStore, name: str) -> str:
    content = store.read(name)
    assert content is not None
    return content.decode()


def test_mirror_record_holds_what_is_filed_and_nothing_unfinished(
    store: RunStore, run: Path
) -> None:
    (run / "artifacts" / ".123.curves.png").write_text("half")
    (run / "evaluation").mkdir()
    (run / "evaluation" / "report.json").write_text("{}")
    mirror = RunMirror(store, run)
    mirror.put_record()
    assert store.list_files().keys() == RECORD | {"session.json"}
    write_rows(run, 5)
    mirror.put_record()
    assert read(store, "metrics.jsonl") == (run / "metrics.jsonl").read_text()


def test_mirror_puts_again_only_what_changed(store: RunStore, run: Path) -> None:
    mirror = RunMirror(store, run)
    mirror.put_record()
    place = f"{store.parent}/{store.name}/"
    before = {
        name: store.filesystem.get_file_info(place + name).mtime_ns for name in sorted(RECORD)
    }
    store.filesystem.delete_file(place + "run_config.yaml")
    mirror.put_record()
    assert "run_config.yaml" not in store.list_files()  # unchanged here, so not looked after
    name = "artifacts/concept_space.safetensors"
    assert store.filesystem.get_file_info(place + name).mtime_ns == before[name]


def test_mirror_best_is_replaced_by_another_best(store: RunStore, run: Path) -> None:
    mirror = RunMirror(store, run)
    mirror.put_best()
    assert not any(name.startswith("best/") for name in store.list_files())
    for step in (2, 4):
        write_best(run, step)
        mirror.put_best()
        assert json.loads(read(store, "best/best.json"))["step"] == step
        assert read(store, "best/student.safetensors") == f"best of {step}" * 9


def test_mirror_of_a_run_taken_over_writes_nothing_more(
    store: RunStore, run: Path, tmp_path: Path
) -> None:
    mirror = RunMirror(store, run)
    mirror.put_record()
    other = write_run(tmp_path / "elsewhere" / "mine", rows=1)
    claim(store, other)
    write_rows(run, 9)
    checkpoint = write_checkpoint_folder(run / "checkpoints" / "step_00000009", "late")
    for put in (mirror.put_record, lambda: mirror.put_checkpoint(checkpoint, num_to_keep=1)):
        with pytest.raises(CheckpointError, match="another process"):
            put()
    assert len(read(store, "metrics.jsonl").splitlines()) == 3
    assert store.list_checkpoints() == []
    require_claim(store, other)


def test_keep_checkpoints_puts_rows_first_and_drops_old_ones(store: RunStore, run: Path) -> None:
    seen: list[str] = []
    keep = keep_checkpoints(store, run, num_to_keep=2, then=lambda path: seen.append(path.name))
    assert keep is not None
    for step in (2, 4, 6):
        write_rows(run, step)
        keep(write_checkpoint_folder(run / "checkpoints" / f"step_{step:08d}", str(step)))
        assert len(read(store, "metrics.jsonl").splitlines()) == step
    assert store.list_checkpoints() == ["step_00000004", "step_00000006"]
    assert seen == ["step_00000002", "step_00000004", "step_00000006"]


def test_keep_checkpoints_without_a_store_is_what_it_was() -> None:
    assert keep_checkpoints(None, Path("nowhere"), num_to_keep=1, then=None) is None


def test_mirroring_files_all_at_a_good_end_and_at_a_bad_one(store: RunStore, run: Path) -> None:
    with mirroring(store, run):
        assert store.list_files().keys() == RECORD | {"session.json"}
        (run / "summary.json").write_text("{}")
    assert store.list_files().keys() == RECORD | {"session.json", "summary.json", "logs/run.log"}
    with pytest.raises(KeyboardInterrupt), mirroring(store, run):
        write_rows(run, 7)
        raise KeyboardInterrupt
    assert len(read(store, "metrics.jsonl").splitlines()) == 7


def test_mirroring_that_can_not_file_the_end_says_how_to_go_on(
    store: RunStore, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="--resume") as caught, mirroring(store, run):
        claim(store, write_run(tmp_path / "elsewhere" / "mine", rows=1))
    assert str(run) in str(caught.value)
    assert count_rows(run) == 3


def test_require_free_refuses_a_trained_run_unless_told(
    store: RunStore, run: Path, tmp_path: Path
) -> None:
    RunMirror(store, run).put_record()
    with pytest.raises(CheckpointError) as caught:
        require_free(store, overwrite=False)
    for way_out in (f"--resume {store.uri}", "--run-name", "--overwrite"):
        assert way_out in str(caught.value)
    require_free(store, overwrite=True)
    untrained = write_run(tmp_path / "untrained", rows=0)
    store.delete()
    require_free(store, overwrite=False)
    claim(store, untrained)
    RunMirror(store, untrained).put_record()
    require_free(store, overwrite=False)


def test_require_free_never_takes_what_is_no_run(store: RunStore, tmp_path: Path) -> None:
    photo = tmp_path / "holiday.jpg"
    photo.write_bytes(b"irreplaceable")
    store.put(photo, "holiday.jpg")
    for overwrite in (False, True):
        with pytest.raises(CheckpointError, match=r"run_config\.yaml"):
            require_free(store, overwrite=overwrite)
