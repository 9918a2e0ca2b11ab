"""Which of a run folder and its store is gone on from, and a stored run fetched for use."""

import json
import shutil
from pathlib import Path

import pytest
from kept_run import count_rows, write_checkpoint_folder, write_rows, write_run

from lssl_ray.errors import CheckpointError
from lssl_ray.storage import RunStore
from lssl_ray.storage.claims import claim, require_claim
from lssl_ray.storage.mirror import RunMirror
from lssl_ray.storage.runs import bring_together, fetch_model, fetch_newest


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where the working copy is."""
    return tmp_path / "here" / "mine"


@pytest.fixture
def kept(store: RunStore, tmp_path: Path) -> RunStore:
    """A store that a run on another machine wrote: 5 rows, checkpoint at step 4."""
    other = write_run(tmp_path / "there" / "mine", rows=5, checkpoint=4)
    outbox = {"version": 1, "run": {"run_folder": str(other), "uid": "u"}, "run_id": "known"}
    (other / "tracking" / "run.json").write_text(json.dumps(outbox))
    claim(store, other)
    mirror = RunMirror(store, other)
    mirror.put_record()
    mirror.put_checkpoint(other / "checkpoints" / "step_00000004", num_to_keep=2)
    return store


def test_bring_together_on_a_fresh_machine_fetches_the_record(kept: RunStore, here: Path) -> None:
    bring_together(kept, here)
    assert count_rows(here) == 5
    assert (here / "artifacts" / "concept_space.safetensors").read_text() == "space"
    outbox = json.loads((here / "tracking" / "run.json").read_text())
    assert outbox["run"] == {"run_folder": str(here), "uid": "u"}
    assert outbox["run_id"] is None  # what the service has is asked of it
    require_claim(kept, here)
    newest = fetch_newest(kept, here)
    assert newest == here / "checkpoints" / "step_00000004"
    assert not list(here.parent.glob(".*"))


def test_bring_together_with_an_older_copy_takes_the_store(kept: RunStore, here: Path) -> None:
    write_run(here, rows=9, checkpoint=2)
    (here / "evaluation").mkdir()
    (here / "evaluation" / "report.json").write_text("{}")
    (here / "summary.json").write_text("{}")
    bring_together(kept, here)
    assert count_rows(here) == 5
    assert not (here / "checkpoints").exists() and not (here / "summary.json").exists()
    assert (here / "evaluation" / "report.json").exists()  # never the store's business


def test_bring_together_with_the_copy_that_wrote_last_keeps_its_rows(
    kept: RunStore, tmp_path: Path
) -> None:
    there = tmp_path / "there" / "mine"
    shutil.rmtree(there / "checkpoints")  # as on Ray, where they are in the store only
    write_rows(there, 7)
    bring_together(kept, there)
    assert count_rows(there) == 7
    assert len((kept.read("metrics.jsonl") or b"").splitlines()) == 7
    assert json.loads((there / "tracking" / "run.json").read_text())["run_id"] == "known"


@pytest.mark.parametrize("has_claim", [True, False])
def test_bring_together_with_a_newer_checkpoint_here_puts_it_there(
    kept: RunStore, here: Path, tmp_path: Path, has_claim: bool
) -> None:
    copy = tmp_path / "there" / "mine" if has_claim else write_run(here, rows=6)
    write_rows(copy, 6)
    write_checkpoint_folder(copy / "checkpoints" / "step_00000006", "newer")
    bring_together(kept, copy)
    assert kept.list_checkpoints() == ["step_00000004", "step_00000006"]
    assert len((kept.read("metrics.jsonl") or b"").splitlines()) == 6
    assert kept.read("checkpoints/step_00000006/student.safetensors") == b"newer" * 9


def test_bring_together_ignores_a_newer_checkpoint_that_is_damaged(
    kept: RunStore, here: Path
) -> None:
    write_run(here, rows=6, checkpoint=6)
    (here / "checkpoints" / "step_00000006" / "student.safetensors").write_text("cut")
    bring_together(kept, here)
    assert count_rows(here) == 5
    assert kept.list_checkpoints() == ["step_00000004"]


def test_bring_together_of_a_run_that_was_kept_nowhere_puts_it_there(
    store: RunStore, here: Path
) -> None:
    write_run(here, rows=3, checkpoint=2)
    bring_together(store, here)
    assert store.list_checkpoints() == ["step_00000002"]
    assert "run_config.yaml" in store.list_files()


def test_bring_together_of_nothing_is_refused(store: RunStore, here: Path) -> None:
    with pytest.raises(CheckpointError, match="mine"):
        bring_together(store, here)
    assert not here.exists() and store.list_files() == {}


@pytest.mark.parametrize("part", ["", "/best", "/checkpoints/step_00000004"])
def test_fetch_model_brings_what_a_model_is_read_from(
    kept: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    best = write_checkpoint_folder(tmp_path / "there" / "mine" / "best", "best")
    (best / "best.json").write_text('{"step": 4, "metric": "m", "value": 1}')
    RunMirror(kept, tmp_path / "there" / "mine").put_best()
    folder = fetch_model(kept.uri + part)
    run = folder if not part else folder.parents[1 if "checkpoints" in part else 0]
    checkpoint = folder / "checkpoints" / "step_00000004" if not part else folder
    names = {"teacher.safetensors", "progress.json", "run_config.yaml", "checkpoint.json"}
    assert {path.name for path in checkpoint.iterdir()} == names
    weights = (checkpoint / "teacher.safetensors").read_text()
    assert weights == ("teacher best" if part == "/best" else "teacher own")
    assert (run / "run_config.yaml").is_file()
    assert (run / "artifacts" / "concept_space.safetensors").is_file()
    assert fetch_model(kept.uri + part) == folder


def test_fetch_model_of_no_run_is_refused(store: RunStore) -> None:
    with pytest.raises(CheckpointError, match="No run"):
        fetch_model(store.uri)
