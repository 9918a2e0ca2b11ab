"""A run's place behind a URI (s3://, gs://, file://, ...): list, put and fetch whole files.

Object stores rename nothing, append to nothing and know no folders: a file goes there in one piece,
and a folder is what a listing shows. pyarrow opens the stores that it knows, fsspec the others.
Credentials come from the environment only, because the URI is saved with the run. Not here: which
files of a run are kept, and when (`mirror`); videos behind URIs (`video/remote`).
"""

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from pyarrow import fs

from lssl_ray.config.storage import find_impossible_storage
from lssl_ray.errors import CheckpointError, ConfigError
from lssl_ray.training.checkpoint import CHECKPOINTS_FOLDER
from lssl_ray.video.files import first_line
from lssl_ray.video.remote import as_local_path, find_remote_errors, find_scheme
from lssl_ray.whole_files import replacing

logger = logging.getLogger(__name__)

RETRY_SECONDS = (1.0, 4.0, 10.0)
CHUNK_BYTES = 64 << 20  # with pyarrow's own 1 MiB, a request each, a checkpoint takes minutes
NUM_TRANSFERS = 4
_ARROW_SCHEMES = frozenset({"s3", "gs", "gcs", "hdfs"})
# What is put there appears at once and whole; elsewhere it is put beside and moved.
_OBJECT_STORES = frozenset({"s3", "gcs"})

T = TypeVar("T")


@dataclass(frozen=True)
class RunStore:
    """One run's place in a store; names are relative to it, with slashes.

    Attributes:
        uri: Of the run, for people.
        filesystem: pyarrow's; goes to other processes, which take credentials from their own
            environment.
        parent: Path of the folder of runs on that filesystem.
        name: Of the run.
        retry_seconds: Waits between attempts at a store that does not answer.
    """

    uri: str
    filesystem: Any
    parent: str
    name: str
    retry_seconds: tuple[float, ...] = RETRY_SECONDS

    def list_files(self, below: str = "") -> dict[str, int]:
        """All files below a folder: name relative to that folder, and bytes; none if it is absent.

        Raises:
            CheckpointError: The store can't be asked.
        """
        folder = self._locate(below)
        selector = fs.FileSelector(folder, allow_not_found=True, recursive=True)

        def list_all() -> Any:
            if isinstance(self.filesystem, fs.PyFileSystem):
                # Otherwise fsspec takes a store that does not answer for an empty folder.
                self.filesystem.handler.fs.ls(folder)
            return self.filesystem.get_file_info(selector)

        try:
            entries = self._attempt("listing", list_all)
        except FileNotFoundError:
            return {}
        prefix = folder.strip("/") + "/"
        return {
            entry.path.strip("/").removeprefix(prefix): entry.size
            for entry in entries
            if entry.type == fs.FileType.File
        }

    def list_checkpoints(self) -> list[str]:
        """Names of the checkpoints that are there, oldest first, whole or not.

        Raises:
            CheckpointError: The store can't be asked.
        """
        names = {name.split("/")[0] for name in self.list_files(CHECKPOINTS_FOLDER)}
        return sorted(name for name in names if name.startswith("step_"))

    def read(self, name: str) -> bytes | None:
        """Content of a small file, or None if there is none.

        Raises:
            CheckpointError: The store can't be asked.
        """

        def read() -> bytes:
            with self.filesystem.open_input_stream(self._locate(name)) as stream:
                content: bytes = stream.read()
                return content

        try:
            return self._attempt(f"reading {name}", read)
        except FileNotFoundError:
            return None

    def put(self, path: Path, name: str) -> None:
        """Put a local file there, whole or not at all; what was there is replaced.

        Raises:
            CheckpointError: The store did not take it.
            FileNotFoundError: There is no such local file.
        """
        target = self._locate(name)
        folder, _, last = target.rpartition("/")
        local = fs.LocalFileSystem()

        def copy(to: str) -> None:
            fs.copy_files(
                str(path),
                to,
                source_filesystem=local,
                destination_filesystem=self.filesystem,
                chunk_size=CHUNK_BYTES,
                use_threads=False,  # uploads by several threads can hang: apache/arrow#32372
            )

        def put() -> None:
            if self.filesystem.type_name in _OBJECT_STORES:
                copy(target)
                return
            self.filesystem.create_dir(folder, recursive=True)
            unfinished = f"{folder}/.{uuid.uuid4().hex}.{last}"
            try:
                copy(unfinished)
                self.filesystem.move(unfinished, target)
            except BaseException:
                if self.filesystem.get_file_info(unfinished).type == fs.FileType.File:
                    self.filesystem.delete_file(unfinished)
                raise

        if not path.is_file():
            raise FileNotFoundError(path)
        self._attempt(f"putting {name}", put)

    def fetch(self, files: Mapping[str, Path]) -> None:
        """Bring files here, each whole or not at all, several at a time.

        Args:
            files: Name to local path; folders are made.

        Raises:
            CheckpointError: The store did not give one.
            FileNotFoundError: One is not there.
        """

        def fetch(name: str) -> None:
            path = files[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as unfinished:
                self._attempt(f"fetching {name}", lambda: self._copy_here(name, unfinished))

        with ThreadPoolExecutor(NUM_TRANSFERS, thread_name_prefix="lssl_ray_fetch") as threads:
            list(threads.map(fetch, files))

    def delete(self, below: str = "") -> None:
        """Delete a folder and all in it; the run itself when no folder is named.

        Raises:
            CheckpointError: The store did not do it.
        """
        folder = self._locate(below)

        def delete() -> None:
            if self.filesystem.get_file_info(folder).type != fs.FileType.NotFound:
                self.filesystem.delete_dir(folder)

        self._attempt(f"deleting {below or self.name}", delete)

    def _locate(self, name: str) -> str:
        return "/".join(part for part in (f"{self.parent}/{self.name}", name) if part)

    def _copy_here(self, name: str, path: Path) -> None:
        fs.copy_files(
            self._locate(name),
            str(path),
            source_filesystem=self.filesystem,
            destination_filesystem=fs.LocalFileSystem(),
            chunk_size=CHUNK_BYTES,
        )

    def _attempt(self, what: str, call: Callable[[], T]) -> T:
        for wait in (*self.retry_seconds, None):
            try:
                return call()
            except FileNotFoundError:
                raise
            except find_remote_errors() as error:
                said = f"{type(error).__name__}: {first_line(error)}"
                if wait is None:
                    raise CheckpointError(
                        f"{self.uri}: {what} failed {len(self.retry_seconds) + 1} times ({said}). "
                        "Check the address, the network, and that credentials are in the "
                        "environment."
                    ) from error
                logger.warning("%s: %s failed, again in %g s: %s", self.uri, what, wait, said)
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")


def open_run_store(storage: str, *, name: str) -> RunStore:
    """The place of a run below a URI; nothing is asked of the store but what opening it takes.

    Args:
        storage: `run.storage`: a URI without credentials and options.
        name: Of the run.

    Raises:
        ConfigError: Nothing opens such a URI, or it holds what it must not.
    """
    if problems := find_impossible_storage(storage):
        raise ConfigError("; ".join(problems))
    try:
        filesystem, parent = _open_filesystem(storage.rstrip("/"))
    except find_remote_errors() as error:
        raise ConfigError(
            f"run.storage={storage}: can't be opened ({type(error).__name__}: "
            f"{first_line(error)}). Give a URI that pyarrow or an installed fsspec package knows "
            "(s3://BUCKET/FOLDER, gs://, hdfs://, file:///), with credentials in the environment."
        ) from error
    return RunStore(
        uri=f"{storage.rstrip('/')}/{name}",
        filesystem=filesystem,
        parent=parent.rstrip("/"),
        name=name,
    )


def find_run_store(storage: str | None, *, name: str) -> RunStore | None:
    """`open_run_store` where `run.storage` is set; None where it is not.

    Raises:
        ConfigError: Nothing opens such a URI.
    """
    return None if storage is None else open_run_store(storage, name=name)


def split_run_uri(uri: str) -> tuple[str, str]:
    """`run.storage` and the name of a run, from the run's own URI.

    Raises:
        ConfigError: It names no run below a store.
    """
    storage, _, name = uri.rstrip("/").rpartition("/")
    if not name or "://" not in f"{storage}/" or storage.endswith(":/"):
        raise ConfigError(
            f"{uri} names no run; give run.storage and the name: s3://BUCKET/.../NAME"
        )
    return storage, name


def _open_filesystem(uri: str) -> tuple[Any, str]:
    scheme = find_scheme(uri)
    if scheme == "file":
        return fs.LocalFileSystem(), as_local_path(uri)
    if scheme in _ARROW_SCHEMES:
        # The rest of such a URI is a name as it is, spaces and percent signs included.
        place, _, name = uri.split("://", 1)[1].partition("/")
        if scheme == "hdfs":
            return fs.FileSystem.from_uri(f"hdfs://{place}/")[0], f"/{name}"
        return fs.FileSystem.from_uri(f"{scheme}://{place}")[0], f"{place}/{name}"
    filesystem, path = fsspec.core.url_to_fs(uri)
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), str(path)
