"""Where a sweep's trials start: the code and relative paths that they find there."""

from pathlib import Path

import pytest

from lssl_ray.sweeping.request import JOB_VARIABLE, find_working_folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    (tmp_path / "here").mkdir()
    (tmp_path / "begun").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_trials_of_a_resumed_sweep_start_where_it_began(here: Path) -> None:
    begun = str(here.parent / "begun")
    assert find_working_folder(begun) == begun


def test_trials_start_here_where_that_folder_is_gone(here: Path) -> None:
    assert find_working_folder(str(here.parent / "gone")) == str(here)


def test_trials_of_a_job_start_in_its_own_copy_of_the_code(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    assert find_working_folder(str(here.parent / "begun")) == str(here)
