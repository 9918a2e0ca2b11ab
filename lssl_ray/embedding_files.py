"""Embeddings of a manifest's videos as a folder of Parquet parts that a second run goes on with.

::

    DIR/
        _provenance.json        model, view, manifests, versions; any other model is refused
        _lock, _log.txt         held by the run that writes; what libraries said
        part-000000.parquet     video_id, path, label, size_bytes, embedding, reason, detail

A row per video; `embedding` is a unit-length float32 list, or null with a `reason`. pyarrow's
reader of Parquet folders skips names that begin with an underscore.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32

from lssl_ray.errors import DataError
from lssl_ray.summary import find_versions
from lssl_ray.video.manifest import Manifest, VideoRecord
from lssl_ray.whole_files import write_whole

FORMAT_VERSION = 1
PROVENANCE_FILE, LOCK_FILE, LOG_FILE = "_provenance.json", "_lock", "_log.txt"
_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("embedding", pa.list_(pa.float32())),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)


@dataclass(frozen=True)
class EmbeddingSource:
    """What embeddings are made with; two that differ never share a folder.

    Attributes:
        name: The model, for people.
        source: What `load_model` was given, and is given again by workers.
        weights: Likewise.
        digest: The encoder's.
        num_frames: Frames looked at per video, evenly from first to last.
        size: Height and width of the largest centred square that is looked at, px.
        decode_short_side: Larger videos are decoded at this short side, px.
        embedding_dim: Numbers per video.
    """

    name: str
    source: str
    weights: str | None
    digest: str
    num_frames: int
    size: int
    decode_short_side: int
    embedding_dim: int


@dataclass(frozen=True)
class EmbeddedVideo:
    """A row: without `embedding` for a video that gave no frames, and with a `reason`."""

    record: VideoRecord
    embedding: Float32[np.ndarray, "embedding"] | None
    reason: str | None
    detail: str | None


@dataclass(frozen=True)
class EmbeddingPart:
    """The good rows of one file."""

    video_ids: list[str]
    paths: list[str]
    labels: list[str | None]
    embeddings: Float32[np.ndarray, "videos embedding"]


def load_provenance(folder: Path) -> dict[str, Any]:
    """What a folder of embeddings was made with.

    Raises:
        DataError: No such folder, or of another version.
    """
    path = folder / PROVENANCE_FILE
    try:
        provenance: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = provenance["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} holds no embeddings ({PROVENANCE_FILE}: {error!r}); make them with "
            "`lssl-ray embed MANIFEST --out DIR`."
        ) from error
    if version != FORMAT_VERSION:
        raise DataError(
            f"{folder} holds embeddings of version {version}; this release reads version "
            f"{FORMAT_VERSION}: embed again into another folder."
        )
    return provenance


def check_source(folder: Path, provenance: Mapping[str, Any], *, digest: str) -> None:
    """Refuse to compare with features of another model.

    Raises:
        DataError: The embeddings are another model's.
    """
    model = provenance["model"]
    if model["digest"] != digest:
        raise DataError(
            f"{folder} holds embeddings of {model['name']} (digest {model['digest'][:12]}), not of "
            f"this model ({digest[:12]}): their cosines would mean nothing. Use that model "
            f"({model['source']}), or another folder."
        )


def list_parts(folder: Path) -> list[Path]:
    """The files with rows, oldest first."""
    return sorted(folder.glob("part-*.parquet"))


def iterate_parts(folder: Path) -> Iterator[EmbeddingPart]:
    """The good rows, file by file.

    Raises:
        DataError: A file is damaged.
    """
    for path in list_parts(folder):
        table = _read_part(path, ["video_id", "path", "label", "embedding"])
        table = table.filter(pc.is_valid(table["embedding"]))
        values = table["embedding"].combine_chunks().flatten().to_numpy()
        yield EmbeddingPart(
            video_ids=table["video_id"].to_pylist(),
            paths=table["path"].to_pylist(),
            labels=table["label"].to_pylist(),
            embeddings=values.reshape(table.num_rows, -1 if table.num_rows else 0),
        )


def file_provenance(
    out: Path, manifest: Manifest, *, manifest_path: str, source: EmbeddingSource
) -> None:
    """Say in the folder what its rows are made of and with; refuse a folder that says otherwise.

    Raises:
        DataError: The folder belongs to another model, or to nobody known.
    """
    made = {"path": manifest_path, "digest": manifest.digest(), "videos": len(manifest)}
    if (out / PROVENANCE_FILE).exists():
        provenance = load_provenance(out)
        check_source(out, provenance, digest=source.digest)
        for key in ("num_frames", "size", "decode_short_side"):
            if provenance["model"][key] != asdict(source)[key]:
                raise DataError(
                    f"{out} holds embeddings made with {key}={provenance['model'][key]}, not "
                    f"{asdict(source)[key]}; choose another folder with --out."
                )
        if made["digest"] in [item["digest"] for item in provenance["manifests"]]:
            return
        provenance["manifests"].append(made)
    elif list_parts(out):
        raise DataError(f"{out} holds parts but no {PROVENANCE_FILE}; choose another --out.")
    else:
        provenance = {
            "version": FORMAT_VERSION,
            "model": asdict(source),
            "view": "frames evenly from first to last, largest centred square, bicubic",
            "manifests": [made],
            "versions": find_versions(),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
    write_whole(out / PROVENANCE_FILE, json.dumps(provenance, indent=2) + "\n")


def load_known(out: Path) -> pa.Table:
    """What is there of each video: `video_id`, `label`, `size_bytes`."""
    columns = ["video_id", "label", "size_bytes"]
    tables = (_read_part(path, columns) for path in list_parts(out))
    return pa.concat_tables([_SCHEMA.empty_table().select(columns), *tables]).combine_chunks()


def check_known(known: pa.Table, manifest: Manifest, out: Path) -> None:
    """Rows that are kept must be of the very videos that the manifest lists.

    Raises:
        DataError: Some are not.
    """
    places = pc.index_in(known["video_id"], value_set=manifest.table["video_id"])
    num_gone = places.null_count
    same = pc.is_valid(places)
    for name in ("label", "size_bytes"):
        ours, theirs = known[name], manifest.table[name].take(places)
        equal = pc.fill_null(pc.equal(ours, theirs), False)
        both_null = pc.and_(pc.is_null(ours), pc.is_null(theirs))
        same = pc.and_(same, pc.or_(equal, both_null))
    num_changed = known.num_rows - num_gone - (pc.sum(same).as_py() or 0)
    if num_gone or num_changed:
        raise DataError(
            f"{out} holds {num_gone} videos that this manifest lacks and {num_changed} of another "
            "size or label. A folder may grow with its manifest, not change: choose another --out."
        )


def drop_bad_rows(out: Path) -> None:
    """Forget the videos that gave no frames, so that they are tried again."""
    for path in list_parts(out):
        table = _read_part(path, _SCHEMA.names)
        good = table.filter(pc.is_valid(table["embedding"]))
        if good.num_rows < table.num_rows:
            _write_part(good, path)


def _write_part(table: pa.Table, path: Path) -> None:
    temporary = path.with_name(f"_{path.name}.tmp")
    pq.write_table(table, temporary)
    os.replace(temporary, path)


def _read_part(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        message = f"{path} is damaged ({error}). Delete it and embed again: only its videos are"
        raise DataError(f"{message} computed anew.") from error


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder for writing.

    Raises:
        DataError: Another run holds it.
    """
    with (out / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(
                f"Another run is writing into {out}; wait for it, or choose another --out."
            ) from error
        yield


class PartWriter:
    """Collects rows into files that are whole or absent; what is left goes out at the end."""

    def __init__(self, folder: Path, *, rows_per_part: int) -> None:
        self._folder = folder
        self._rows_per_part = rows_per_part
        self._rows: list[dict[str, Any]] = []
        numbers = [int(path.stem.removeprefix("part-")) for path in list_parts(folder)]
        self._next = max(numbers, default=-1) + 1

    def add(self, row: EmbeddedVideo) -> None:
        """Take a row; a full file goes out."""
        record = row.record
        self._rows.append(
            {
                "video_id": record.video_id,
                "path": record.path,
                "label": record.label,
                "size_bytes": record.size_bytes,
                "embedding": row.embedding,
                "reason": row.reason,
                "detail": row.detail,
            }
        )
        if len(self._rows) >= self._rows_per_part:
            self._flush()

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, *exc: object) -> None:
        self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        path = self._folder / f"part-{self._next:06d}.parquet"
        _write_part(pa.Table.from_pylist(self._rows, schema=_SCHEMA), path)
        self._rows = []
        self._next += 1
