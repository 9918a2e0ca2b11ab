"""The record from which a killed sweep goes on."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lssl_ray.errors import CheckpointError, ConfigError
from lssl_ray.locking import holding, wait_until_free
from lssl_ray.sweeping.record import (
    SweepFolder,
    SweepRecord,
    SweepSettings,
    create_record,
    open_record,
)

SETTINGS = SweepSettings(
    name="mine",
    space="temperatures",
    question="Which?",
    search="random",
    scheduler="asha",
    select="held_back/balance",
    num_configurations=2,
    num_seeds=2,
    seed=7,
    working_folder="/",
)
VALUES = {"objective.student_temperature": 0.1, "variant": "full"}


@pytest.fixture
def record(tmp_path: Path) -> SweepRecord:
    return create_record(SweepFolder(tmp_path / "runs" / "mine"), SETTINGS)


def test_record_read_back_is_the_same(record: SweepRecord) -> None:
    record.plan(VALUES, {"concepts.layout": "full"})
    record.change("c001-s8", status="failed", reason="it \u00fcbel", num_retries=2)
    record.change("c001-s7", status="finished", steps=4, scores={"held_back/balance": 0.1 + 0.2})
    again = open_record(record.folder.path)
    assert again.settings == SETTINGS
    assert again.trials == record.trials


def test_plan_gives_each_configuration_every_seed(record: SweepRecord) -> None:
    record.plan(VALUES, {})
    record.plan({**VALUES, "variant": "names"}, {})
    planned = [(trial.trial_id, trial.configuration, trial.seed) for trial in record.trials]
    assert planned == [("c001-s7", 1, 7), ("c001-s8", 1, 8), ("c002-s7", 2, 7), ("c002-s8", 2, 8)]
    assert record.num_configurations == 2


def test_only_ended_trials_are_told_of(record: SweepRecord) -> None:
    record.plan(VALUES, {})
    record.change("c001-s7", status="running")
    assert record.list_ended() == []
    record.change("c001-s7", status="stopped_early", reason="too low")
    (told,) = record.list_ended()
    assert (told.trial_id, told.status, told.reason) == ("c001-s7", "stopped_early", "too low")
    assert told.run_folder == str(record.folder.path / "trials" / "c001-s7")


def test_a_sweep_that_ran_is_not_overwritten(record: SweepRecord) -> None:
    record.plan(VALUES, {})
    record.change("c001-s7", status="running")
    with pytest.raises(CheckpointError, match="--resume"):
        create_record(record.folder, SETTINGS)


def test_a_sweep_refused_before_its_first_trial_is_begun_anew(record: SweepRecord) -> None:
    record.plan(VALUES, {})
    again = create_record(record.folder, replace(SETTINGS, search="grid"))
    assert again.trials == []


def test_a_sweep_killed_before_its_first_configuration_is_begun_anew(record: SweepRecord) -> None:
    assert open_record(record.folder.path).settings == SETTINGS
    again = create_record(record.folder, replace(SETTINGS, search="grid"))
    assert open_record(record.folder.path).settings == again.settings != SETTINGS


def test_a_sweep_whose_first_trial_is_about_to_start_is_not_thrown_away(
    record: SweepRecord,
) -> None:
    record.plan(VALUES, {})
    with (
        holding(record.folder.lock, what="it"),
        pytest.raises(CheckpointError, match="--name"),
    ):
        create_record(record.folder, SETTINGS)
    assert open_record(record.folder.path).trials == record.trials


def test_a_folder_that_is_no_sweep_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError):
        create_record(SweepFolder(tmp_path / "mine"), SETTINGS)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_no_sweep_names_those_that_are_there(record: SweepRecord) -> None:
    record.save()
    with pytest.raises(CheckpointError, match="mine"):
        open_record(record.folder.path.with_name("other"))


def test_a_record_of_another_format_is_refused(record: SweepRecord) -> None:
    record.save()
    data = json.loads(record.folder.record.read_text())
    record.folder.record.write_text(json.dumps({**data, "version": 99}))
    with pytest.raises(CheckpointError, match="99"):
        open_record(record.folder.path)


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}', "not text"])
def test_a_record_that_can_not_be_read_is_refused(record: SweepRecord, text: str) -> None:
    record.folder.record.write_bytes(b"\xff" if text == "not text" else text.encode())
    with pytest.raises(CheckpointError, match=r"sweep\.json"):
        open_record(record.folder.path)


def test_a_lock_keeps_others_out_until_its_process_is_gone(tmp_path: Path) -> None:
    lock = tmp_path / "a" / "lock"
    code = (
        "import sys; from pathlib import Path; from lssl_ray.locking import holding\n"
        "with holding(Path(sys.argv[1]), what='it'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError), holding(lock, what="it"):
            pass
        assert not wait_until_free([lock], seconds=0.0)
        other.kill()
    assert wait_until_free([lock], seconds=10.0)
    with holding(lock, what="it"):
        pass
