"""Folders and stores: written to and left as they were; room for checkpoints."""

from pathlib import Path

import pytest

from lssl_ray.doctor.folders import (
    FolderFacts,
    judge_free_space,
    judge_writing,
    lending_folder,
    try_folder,
)
from lssl_ray.doctor.stores import try_store
from lssl_ray.errors import CheckpointError, LsslError

MIB = 2**20


def test_folder_that_can_be_written_is_left_empty(tmp_path: Path) -> None:
    facts = try_folder(tmp_path)
    assert facts.error is None
    assert facts.free_mib > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/proc", "/nowhere/at/all"])
def test_folder_that_can_t_be_written_says_why(path: str) -> None:
    facts = try_folder(Path(path))
    assert facts.error
    assert judge_writing("run folder", {"here": facts}).status == "problem"


def test_writing_is_judged_by_who_can_t() -> None:
    good, bad = FolderFacts("/runs", None, 1.0), FolderFacts("/runs", "Permission denied", 0.0)
    assert judge_writing("run folder", {"one": good}).status == "ok"
    finding = judge_writing("run folder", {"one": good, "two": bad})
    assert finding.status == "problem"
    assert "two: Permission denied" in finding.found
    assert "one:" not in finding.found


def test_lent_folder_goes_again_with_all_that_was_made_for_it(tmp_path: Path) -> None:
    with lending_folder(tmp_path / "a" / "b") as folder:
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_lent_folder_stays_when_it_was_there_or_got_something(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with lending_folder(tmp_path / "old"):
        pass
    with lending_folder(tmp_path / "new" / "deep") as folder:
        (folder.parent / "run").touch()
    assert (tmp_path / "old").is_dir()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["run"]


def test_lent_folder_that_can_t_be_made_is_refused() -> None:
    with (
        pytest.raises(CheckpointError, match=r"/proc/none.*run\.folder"),
        lending_folder(Path("/proc/none/deep")),
    ):
        pass


@pytest.mark.parametrize(
    ("free_mib", "status"), [(299.0, "problem"), (300.0, "warning"), (600.0, "ok")]
)
def test_free_space_is_for_kept_checkpoints_and_the_next(free_mib: float, status: str) -> None:
    folder = FolderFacts("/runs", None, free_mib)
    finding = judge_free_space("free space", folder, bytes_each=100 * MIB, num_kept=2)
    assert (finding.status, finding.remedy is None) == (status, status == "ok")


def test_store_is_left_as_it_was(tmp_path: Path) -> None:
    told = try_store(f"file://{tmp_path}/store")
    assert "store" in told
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_store_that_refuses_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LsslError, match="file"):
        try_store(f"file://{tmp_path}/file/store")
