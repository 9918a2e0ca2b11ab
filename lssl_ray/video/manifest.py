"""The manifest: one Parquet row per video file, good or bad, made by `lssl-ray data index`.

It is what training reads instead of folders: sizes, lengths and rates known, bad files marked with
a reason. Columns stay in Arrow, so a million rows cost megabytes; a row becomes a Python object
only when it is asked for. Not here: what a row is (`record`), finding and probing files (`index`).
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lssl_ray import __version__
from lssl_ray.errors import DataError
from lssl_ray.video.digest import compute_table_digest
from lssl_ray.video.probing import PROBING_VERSION
from lssl_ray.video.record import SCHEMA, VideoRecord

__all__ = [
    "MANIFEST_VERSION",
    "ROWS_PER_BATCH",
    "Manifest",
    "OutdatedManifestError",
    "VideoRecord",
    "build_manifest",
    "build_manifest_of_table",
    "build_table",
    "find_repeated",
    "load_manifest",
    "save_manifest",
]

MANIFEST_VERSION = 1
ROWS_PER_BATCH = 4096  # rows that are Python objects at a time while a table is made
_METADATA_KEY = b"lssl_ray.manifest"


class OutdatedManifestError(DataError):
    """A manifest that holds nothing for this version: another version's, or one without rows."""


@dataclass(frozen=True)
class Manifest:
    """A table of videos. Selections are new manifests on the same memory.

    Attributes:
        table: Arrow table; its columns are the fields of `VideoRecord`.
        root: The folder that was indexed, for people; nothing is computed from it.
        probing_version: `probing.PROBING_VERSION` of the oldest rows; 0 from before there was one.
    """

    table: pa.Table
    root: str
    probing_version: int = PROBING_VERSION

    def __len__(self) -> int:
        """Number of videos."""
        return int(self.table.num_rows)

    def usable(self) -> "Manifest":
        """The videos with status "ok"."""
        return self._filter(pc.equal(self.table["status"], "ok"))

    def bad(self) -> "Manifest":
        """The videos that are not usable."""
        return self._filter(pc.not_equal(self.table["status"], "ok"))

    def where(self, *, split: str) -> "Manifest":
        """The videos of one split.

        Raises:
            DataError: No video is in that split; the message lists the splits there are.
        """
        selected = self._filter(pc.equal(self.table["split"], split))
        if len(selected) == 0:
            known = sorted(name for name in pc.unique(self.table["split"]).to_pylist() if name)
            raise DataError(
                f"split={split!r} has no video in the manifest of {self.root}; its splits are "
                f"{', '.join(known) or 'none'}. Choose one of them, or index again with a split."
            )
        return selected

    def row(self, index: int) -> VideoRecord:
        """One video by position, 0 <= index < len(self).

        Raises:
            IndexError: There is no such row.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of a manifest with {len(self)} rows")
        return VideoRecord(**self.table.slice(index, 1).to_pylist()[0])

    def records(self) -> list[VideoRecord]:
        """All videos as Python objects: for reports and small tables, not for a million rows."""
        return [VideoRecord(**row) for row in self.table.to_pylist()]

    def labels(self) -> list[str]:
        """The label names, sorted, each once."""
        return sorted(name for name in pc.unique(self.table["label"]).to_pylist() if name)

    def digest(self) -> str:
        """SHA-256 (hex) of what training sees, in row order; the same after a folder was moved."""
        header = f"lssl_ray.manifest {MANIFEST_VERSION}\n"
        return compute_table_digest(self.table, header=header)

    def _filter(self, mask: Any) -> "Manifest":
        if pc.all(mask, skip_nulls=False).as_py():
            return self  # a copy of a large table is gigabytes
        return replace(self, table=self.table.filter(mask).combine_chunks())


def build_manifest(records: Iterable[VideoRecord], *, root: str) -> Manifest:
    """Builds a manifest in the given order.

    Raises:
        DataError: A video_id appears twice.
    """
    return build_manifest_of_table(build_table(records), root=root)


def build_manifest_of_table(table: pa.Table, *, root: str) -> Manifest:
    """Builds a manifest of a table that `build_table` made, or of rows of such tables.

    Raises:
        DataError: A video_id appears twice.
    """
    _check_unique(table, f"the manifest of {root}")
    return Manifest(table=table.combine_chunks(), root=root)


def build_table(records: Iterable[VideoRecord]) -> pa.Table:
    """Turns records into a table with a manifest's columns, a few thousand at a time."""
    rows = iter(records)
    batches = []
    while chunk := [vars(record) for record in islice(rows, ROWS_PER_BATCH)]:
        batches.append(pa.RecordBatch.from_pylist(chunk, schema=SCHEMA))
    return pa.Table.from_batches(batches, schema=SCHEMA)


def save_manifest(manifest: Manifest, path: str) -> None:
    """Writes a Parquet file under a temporary name, then renames it; makes the folder if needed.

    Raises:
        DataError: The file can't be written.
    """
    metadata = {
        "version": MANIFEST_VERSION,
        "probing_version": manifest.probing_version,
        "root": manifest.root,
        "created_by": __version__,
    }
    table = manifest.table.replace_schema_metadata({_METADATA_KEY: json.dumps(metadata).encode()})
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        os.makedirs(folder, exist_ok=True)
        try:
            pq.write_table(table, temporary)
            os.replace(temporary, path)
        finally:
            if os.path.lexists(temporary):
                os.unlink(temporary)
    except OSError as error:
        raise DataError(
            f"{path}: the manifest can't be written ({error.strerror or error}); choose another "
            "place or free some space."
        ) from error


def load_manifest(path: str) -> Manifest:
    """Reads a manifest.

    Raises:
        OutdatedManifestError: It is a manifest of another version, or has no rows.
        DataError: The file is missing or no manifest.
    """
    remedy = "Make one with `lssl-ray data index FOLDER`."
    if not os.path.isfile(path):
        raise DataError(f"{path}: there is no such manifest file. {remedy}")
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        first_line = str(error).splitlines()[0]
        raise DataError(f"{path}: is not a Parquet file ({first_line}). {remedy}") from error
    root, probing_version = _check_version(path, table.schema.metadata or {}, remedy)
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise DataError(f"{path}: the manifest lacks the columns {', '.join(missing)}. {remedy}")
    try:
        table = table.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{path}: a column has the wrong type ({error}). {remedy}") from error
    if table.num_rows == 0:
        raise OutdatedManifestError(f"{path}: the manifest has no rows. {remedy}")
    _check_unique(table, path)
    return Manifest(table.combine_chunks(), root=root, probing_version=probing_version)


def _check_version(path: str, metadata: dict[bytes, bytes], remedy: str) -> tuple[str, int]:
    """Returns the root and the probing version that the metadata names."""
    try:
        stored = json.loads(metadata[_METADATA_KEY])
        version, root = stored["version"], str(stored["root"])
        probing_version = int(stored.get("probing_version", 0))
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: is a Parquet file but not a manifest. {remedy}") from None
    if version != MANIFEST_VERSION:
        raise OutdatedManifestError(
            f"{path}: is a manifest of version {version!r}; this lssl_ray {__version__} reads "
            f"version {MANIFEST_VERSION}. Index the folder again with `lssl-ray data index {root}`."
        )
    return root, probing_version


def _check_unique(table: pa.Table, name: str) -> None:
    twice = find_repeated(table["video_id"])
    if twice is not None:
        raise DataError(
            f"{name}: video_id {twice!r} appears more than once; ids must be unique. Index the "
            "folders' common parent with `lssl-ray data index`, or rename one of them."
        )


def find_repeated(strings: pa.ChunkedArray) -> str | None:
    """A string that is there more than once; takes 8 bytes of memory per string."""
    hashes = np.empty(len(strings), dtype=np.int64)
    filled = 0
    for piece in _iterate_pieces(strings):
        hashes[filled : filled + len(piece)] = [hash(text) for text in piece]
        filled += len(piece)
    hashes.sort()
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    seen: set[str] = set()
    for piece in _iterate_pieces(strings) if suspects else ():
        for text in piece:
            if hash(text) in suspects:
                if text in seen:
                    return text
                seen.add(text)  # so far it only shares its hash
    return None


def _iterate_pieces(strings: pa.ChunkedArray) -> Iterator[list[str]]:
    for chunk in strings.chunks:
        for start in range(0, len(chunk), ROWS_PER_BATCH):
            yield chunk.slice(start, ROWS_PER_BATCH).to_pylist()
