"""Files behind a URI: the same on a disk and an object store; whole or absent; no secrets told."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow import fs

from lssl_ray.errors import CheckpointError, ConfigError
from lssl_ray.storage import RunStore, open_run_store
from lssl_ray.storage.store import split_run_uri

MIB = 1 << 20


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_store_files_come_back_as_they_were_put(store: RunStore, tmp_path: Path) -> None:
    contents = {
        "run_config.yaml": b"a: 1\n",
        "artifacts/a b%20c.png": b"",
        "checkpoints/step_00000002/big": bytes(range(256)) * (12 * MIB // 256),  # several parts
    }
    assert store.list_files() == {}
    for name, content in contents.items():
        store.put(write(tmp_path / "source" / name, content), name)
    assert store.list_files() == {name: len(content) for name, content in contents.items()}
    assert store.list_files("artifacts") == {"a b%20c.png": 0}
    assert store.list_checkpoints() == ["step_00000002"]
    store.fetch({name: tmp_path / "back" / name for name in contents})
    for name, content in contents.items():
        assert (tmp_path / "back" / name).read_bytes() == content
    store.delete("checkpoints/step_00000002")
    assert store.list_files().keys() == contents.keys() - {"checkpoints/step_00000002/big"}
    store.delete()
    assert store.list_files() == {}


def test_store_put_again_replaces(store: RunStore, tmp_path: Path) -> None:
    for content in (b"long content", b"short"):
        store.put(write(tmp_path / "file", content), "file")
    assert store.read("file") == b"short"
    assert store.list_files() == {"file": 5}


def test_store_what_is_not_there_is_told_apart(store: RunStore, tmp_path: Path) -> None:
    assert store.read("gone") is None
    assert store.list_files("gone") == {} and store.list_checkpoints() == []
    store.delete("gone")
    with pytest.raises(FileNotFoundError):
        store.put(tmp_path / "gone", "gone")
    with pytest.raises(FileNotFoundError):
        store.fetch({"gone": tmp_path / "here"})
    assert not list(tmp_path.glob("**/here")) and store.list_files() == {}


def test_store_beside_another_run_touches_only_its_own(storage: str, tmp_path: Path) -> None:
    mine, other = (open_run_store(storage, name=name) for name in ("mine", "mine-2"))
    path = write(tmp_path / "file", b"x")
    for store in (mine, other):
        store.put(path, "metrics.jsonl")
    assert mine.list_files() == {"metrics.jsonl": 1}
    mine.delete()
    assert other.list_files() == {"metrics.jsonl": 1}


def test_store_that_takes_nothing_says_where_and_leaves_nothing(tmp_path: Path) -> None:
    in_the_way = write(tmp_path / "file", b"x")
    uri = f"file://{in_the_way}/runs"
    store = RunStore(uri, fs.LocalFileSystem(), f"{in_the_way}/runs", "mine", retry_seconds=(0.0,))
    with pytest.raises(CheckpointError, match="2 times") as caught:
        store.put(in_the_way, "run_config.yaml")
    assert uri in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


class FlakyFileSystem(MemoryFileSystem):  # type: ignore[misc]  # Any to mypy
    """Does not answer the first calls."""

    cachable = False  # codespell:ignore cachable
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def __init__(self, *, num_failures: int) -> None:
        super().__init__()
        self.num_failures = num_failures

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        if self.num_failures:
            self.num_failures -= 1
            raise ConnectionError("no answer")
        return super().ls(path, detail=detail, **kwargs)


@pytest.mark.parametrize(("num_failures", "is_read"), [(2, True), (3, False)])
def test_store_without_answer_is_asked_again(
    num_failures: int, is_read: bool, tmp_path: Path
) -> None:
    flaky = FlakyFileSystem(num_failures=num_failures)
    filesystem = fs.PyFileSystem(fs.FSSpecHandler(flaky))
    store = RunStore("memory://runs/mine", filesystem, "/runs", "mine", retry_seconds=(0.0, 0.0))
    if is_read:
        assert store.list_files() == {}
    else:
        with pytest.raises(CheckpointError, match="no answer"):
            store.list_files()


@pytest.mark.parametrize(
    "uri",
    [
        "s3://KEY:hunter2@bucket/runs",
        "s3://KEY:hunt/er2@bucket/runs",
        "hdfs://me:hunter2@host/runs",
    ],
)
def test_store_with_credentials_in_the_uri_is_refused_unseen(uri: str) -> None:
    with pytest.raises(ConfigError, match="environment") as caught:
        open_run_store(uri, name="mine")
    assert "hunt" not in str(caught.value) and "er2" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["s3://bucket?region=x", "https://host/runs", "/shared/runs", "x://y", "nosuch://y"]
)
def test_store_that_nothing_writes_to_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.storage"):
        open_run_store(uri, name="mine")


def test_split_run_uri_gives_storage_and_name() -> None:
    assert split_run_uri("s3://bucket/runs/mine/") == ("s3://bucket/runs", "mine")
    assert split_run_uri("s3://bucket/mine") == ("s3://bucket", "mine")
    for uri in ("s3://bucket", "mine"):
        with pytest.raises(ConfigError, match="names no run"):
            split_run_uri(uri)
