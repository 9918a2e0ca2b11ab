"""Nearest videos of a folder of embeddings, by cosine: exact, or through an index when large.

The exact way reads the folder once, part by part, and holds one part at a time. The index (FAISS,
hierarchical small worlds) is built once beside the parts and answers later searches from there; it
may miss a neighbour, never report a wrong cosine.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Float32
from torch import Tensor

from lssl_ray.embedding_files import check_source, iterate_parts, list_parts, load_provenance
from lssl_ray.errors import ConfigError, DataError

# Videos. The exact way takes 2.7 s of one core for as many rows of 512 numbers.
INDEX_FROM = 200_000
SearchMethod = Literal["exact", "index"]
_LINKS, _MIN_VISITED = 32, 128


@dataclass(frozen=True)
class Hit:
    """A video that was found.

    Attributes:
        score: Cosine with what was asked for, in [-1, 1].
        video_id: The manifest's id.
        path: Where the video was when it was embedded.
        label: The manifest's label, if it had one.
    """

    score: float
    video_id: str
    path: str
    label: str | None


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        hits: Best first; equal scores by video_id.
        num_videos: Videos with an embedding.
        method: How they were searched.
        note: Why not through an index, where one was due; else None.
    """

    hits: tuple[Hit, ...]
    num_videos: int
    method: SearchMethod
    note: str | None


def open_embeddings(folder: Path, *, digest: str) -> dict[str, Any]:
    """The provenance of a folder that may be searched with features of this model.

    Raises:
        DataError: No embeddings, none with frames, or another model's.
    """
    provenance = load_provenance(folder)
    check_source(folder, provenance, digest=digest)
    return provenance


def search_embeddings(
    folder: Path,
    query: Float[Tensor, "embedding"],
    *,
    top_k: int,
    method: SearchMethod | Literal["auto"] = "auto",
    without_path: str | None = None,
) -> SearchResult:
    """The videos nearest to a feature.

    Args:
        folder: From `lssl-ray embed`; check it with `open_embeddings` first.
        query: Unit length, of the same model.
        top_k: How many videos, at least 1.
        method: `auto` takes the index from 200,000 videos on, when its library is there.
        without_path: A video that is not to be found: the one that was asked with.

    Raises:
        ConfigError: `top_k` below 1, or the index was asked for and its library is missing.
        DataError: A damaged part, or no video with an embedding.
    """
    if top_k < 1:
        raise ConfigError(f"top_k={top_k} must be at least 1.")
    vector = query.detach().cpu().float().numpy()
    num_rows = sum(pq.read_metadata(path).num_rows for path in list_parts(folder))
    note = None
    if method == "auto":
        method = "index" if num_rows >= INDEX_FROM else "exact"
        if method == "index" and find_spec("faiss") is None:
            method = "exact"
            note = f"{num_rows} videos one by one; pip install 'lssl_ray[search]' for an index"
    wanted = top_k + (without_path is not None)
    search = _search_exact if method == "exact" else _search_index
    hits, num_videos = search(folder, vector, wanted)
    if not num_videos:
        raise DataError(f"{folder} holds no video with an embedding; its column `reason` says why.")
    kept = [hit for hit in hits if hit.path != without_path]
    return SearchResult(tuple(kept[:top_k]), num_videos, method, note)


def _search_exact(
    folder: Path, query: Float32[np.ndarray, "embedding"], count: int
) -> tuple[list[Hit], int]:
    best: list[Hit] = []
    num_videos = 0
    for part in iterate_parts(folder):
        num_videos += len(part.video_ids)
        scores = part.embeddings @ query if part.video_ids else np.empty(0, dtype=np.float32)
        rows = np.arange(len(scores))
        if count < len(scores):
            # All rows as good as the last one that is kept: which of them, the ids decide.
            rows = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
        best += [
            Hit(float(scores[row]), part.video_ids[row], part.paths[row], part.labels[row])
            for row in rows.tolist()
        ]
        best = _sort(best)[:count]
    return best, num_videos


def _search_index(
    folder: Path, query: Float32[np.ndarray, "embedding"], count: int
) -> tuple[list[Hit], int]:
    faiss = _import_faiss()
    path, rows = _find_index_files(folder)
    if not path.is_file() or not rows.is_file():
        _build_index(faiss, folder, path, rows)
    index = faiss.read_index(str(path))
    table = pq.read_table(rows)
    index.hnsw.efSearch = max(_MIN_VISITED, 4 * count)
    if not index.ntotal:
        return [], 0
    scores, numbers = index.search(query[None], min(count, index.ntotal))
    found = [
        Hit(score=float(score), **table.slice(number, 1).to_pylist()[0])
        for score, number in zip(scores[0], numbers[0].tolist(), strict=True)
        if number >= 0
    ]
    return _sort(found), index.ntotal


def _build_index(faiss: Any, folder: Path, path: Path, rows: Path) -> None:
    """The graph and what its rows are, each whole or absent; those of older parts go."""
    index = None
    names: dict[str, list[str | None]] = {"video_id": [], "path": [], "label": []}
    for part in iterate_parts(folder):
        if not part.video_ids:
            continue
        if index is None:
            width = part.embeddings.shape[1]
            index = faiss.IndexHNSWFlat(width, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.add(np.ascontiguousarray(part.embeddings))
        names["video_id"] += part.video_ids
        names["path"] += part.paths
        names["label"] += part.labels
    if index is None:
        raise DataError(f"{folder} holds no video with an embedding; its column `reason` says why.")
    for old in _list_index_files(folder):
        old.unlink()
    schema = pa.schema([pa.field(name, pa.string()) for name in names])
    pq.write_table(pa.table(names, schema=schema), f"{rows}.tmp")
    os.replace(f"{rows}.tmp", rows)
    faiss.write_index(index, f"{path}.tmp")
    os.replace(f"{path}.tmp", path)


def _find_index_files(folder: Path) -> tuple[Path, Path]:
    """Named by the parts that they were made from."""
    parts = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in list_parts(folder)
    ]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return folder / f"_index-{key}.faiss", folder / f"_index-{key}.parquet"


def _list_index_files(folder: Path) -> Iterator[Path]:
    return folder.glob("_index-*")


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            "Searching through an index needs FAISS: pip install 'lssl_ray[search]', or search "
            "with --method exact."
        ) from error
    return faiss


def _sort(hits: list[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: (-hit.score, hit.video_id))
